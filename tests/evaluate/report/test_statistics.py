"""Statistics of an evaluation: closed forms, coverage on simulated data, what is missing."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from dagan.evaluate import statistics
from dagan.evaluate.records import Evaluation, PairScores
from dagan.evaluate.rulers import RulerFiles, Settings, catalogue
from dagan.evaluate.statistics import (
    Interval,
    against_copy,
    analyse,
    compare,
    interval,
    over_rotation,
    pair_means,
    sign_flip,
    summarise,
)
from dagan.evaluate.tables import results
from fake_evaluation import CSIM, FID, FLICKER, L1, LPIPS, PSNR, fake_evaluation


def scored(pair, values, *, metric="csim", driving=None, frames=None, method="a", rotation=()):
    frames = tuple(range(len(values))) if frames is None else frames
    return PairScores(
        pair=pair, source="s", driving=driving or pair, method=method, frames=frames, values={metric: tuple(values)}, rotation=rotation
    )


def run(*scores, metrics=(CSIM,), methods=("a",), totals=None):
    return Evaluation(protocol="reconstruction", metrics=metrics, methods=methods, scores=scores, totals=totals or {})


def test_pairs_weigh_alike_and_missing_values_are_counted():
    table = analyse(run(scored("p", [0.2, None, 0.4, float("inf")]), scored("q", [0.9]), scored("r", [None])))
    found = table.summary("a", "csim")
    assert found.mean == pytest.approx((0.3 + 0.9) / 2)
    assert (found.pairs, found.clips, found.measured, found.missing) == (2, 2, 3, 3)
    assert found.interval is None
    with pytest.raises(KeyError):
        table.summary("a", "l1")


def test_nothing_measured_is_none_not_zero():
    table = analyse(run(scored("p", [None]), methods=("a", "b")))
    assert table.summary("a", "csim").mean is None
    assert table.summary("b", "csim").mean is None
    assert not table.comparisons


def test_metrics_per_clip_and_per_set():
    scores = [scored(str(i), [float(i)], metric="flicker", frames=(4, 8, 12)) for i in range(6)]
    totals = {"a": {"fid": 12.0}, "copy": {"fid": 24.0}}
    table = analyse(run(*scores, metrics=(FLICKER, FID), methods=("a", "copy"), totals=totals))
    assert table.summary("a", "flicker").mean == 2.5
    assert table.summary("a", "flicker").measured == 6
    fid = table.summary("a", "fid")
    assert (fid.mean, fid.ratio, fid.interval, fid.pairs) == (12.0, 0.5, None, 0)


def test_interval_of_the_mean_is_near_the_normal_one():
    values = np.random.default_rng(1).normal(5, 2, 200)
    found = interval(values, np.ones(200))
    half = norm.ppf(0.975) * values.std() / np.sqrt(200)
    assert found.low == pytest.approx(values.mean() - half, abs=0.05)
    assert found.high == pytest.approx(values.mean() + half, abs=0.05)


@pytest.mark.parametrize(("draw", "mean"), [(lambda r, n: r.normal(0, 1, n), 0.0), (lambda r, n: r.exponential(1, n), 1.0)])
def test_interval_covers_the_true_mean_as_often_as_it_says(draw, mean, monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 499)
    rng = np.random.default_rng(7)
    inside = 0
    for _ in range(200):
        found = interval(draw(rng, 40), np.ones(40))
        inside += found.low <= mean <= found.high
    # Nominally 95 %; a bootstrap of 40 values is known to fall a little short, 200 repetitions have a standard error of 1.7 %.
    assert 0.89 <= inside / 200 <= 0.99


def test_interval_takes_pairs_of_a_clip_together():
    # Ten pairs for each clip add no information: the interval stays as wide as with one.
    values = np.random.default_rng(2).normal(size=12)
    alone = analyse(run(*(scored(str(i), [v]) for i, v in enumerate(values)))).summary("a", "csim")
    tenfold = [scored(f"{i}-{k}", [v], driving=str(i)) for i, v in enumerate(values) for k in range(10)]
    together = analyse(run(*tenfold)).summary("a", "csim")
    assert (together.pairs, together.clips) == (120, 12)
    assert together.interval.low == pytest.approx(alone.interval.low, abs=1e-3)
    assert together.interval.high == pytest.approx(alone.interval.high, abs=1e-3)


def test_interval_of_constant_values_is_a_point_and_few_clips_have_none():
    assert interval(np.full(8, 0.3), np.ones(8)) == Interval(low=pytest.approx(0.3), high=pytest.approx(0.3))
    assert interval(np.arange(5.0), np.ones(5)) is None


def test_p_value_of_all_sign_flips_by_hand():
    values = np.array([0.3, 1.2, -0.4, 0.8, 0.5, 0.9, 1.1])
    sums = [abs(np.dot(signs, values)) for signs in product((-1, 1), repeat=7)]
    assert sign_flip(values) == pytest.approx(np.mean(np.array(sums) >= values.sum() - 1e-12))
    assert sign_flip(np.full(6, 1.0)) == pytest.approx(2 / 64)
    assert sign_flip(np.ones(5)) is None


def test_p_values_are_uniform_without_a_difference_and_symmetric(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 499)
    rng = np.random.default_rng(3)
    draws = rng.normal(size=(300, 20))
    found = np.array([sign_flip(draw) for draw in draws])
    assert np.mean(found < 0.05) == pytest.approx(0.05, abs=0.04)
    assert np.mean(found < 0.5) == pytest.approx(0.5, abs=0.09)
    assert [sign_flip(-draw) for draw in draws[:20]] == list(found[:20])
    assert found.min() > 0


def test_comparison_uses_the_frames_both_have():
    a = {"p": scored("p", [1.0, None, 3.0, 9.0], frames=(0, 1, 2, 3)), "q": scored("q", [5.0]), "only a": scored("only a", [1.0])}
    b = {"p": scored("p", [2.0, 7.0, 2.0], frames=(2, 1, 0), method="b"), "q": scored("q", [5.0], method="b"), "z": scored("z", [None])}
    found = compare(a, b, CSIM)
    assert (found.pairs, found.frames, found.clips) == (2, 3, 2)
    assert (found.a_mean, found.b_mean, found.difference) == (3.5, 3.5, 0.0)
    assert (found.wins, found.p, found.interval) == (0.5, None, None)
    assert compare(a, {}, CSIM) is None


def test_wins_follow_the_better_direction():
    a = {str(i): scored(str(i), [v], metric="l1") for i, v in enumerate((1.0, 1.0, 3.0, 2.0))}
    b = {str(i): scored(str(i), [2.0], metric="l1", method="b") for i in range(4)}
    assert compare(a, b, L1).wins == (1 + 1 + 0 + 0.5) / 4
    assert compare(b, a, L1).wins == 1 - compare(a, b, L1).wins


def test_comparison_is_antisymmetric_and_finds_a_real_difference():
    run_ = fake_evaluation(methods=3)
    table = statistics.by_method(run_)
    forth, back = (compare(table[x], table[y], LPIPS) for x, y in (("lite-256", "copy"), ("copy", "lite-256")))
    assert forth.difference == pytest.approx(-back.difference)
    assert forth.interval.low == pytest.approx(-back.interval.high, rel=0.05)
    assert forth.p == back.p
    assert forth.p < 0.001
    assert forth.interval.low <= forth.difference <= forth.interval.high < 0


def test_figures_of_the_old_range_are_shown_but_not_compared_again():
    old = replace(PSNR, key="psnr_range2")
    both = [
        PairScores(pair="p", source="s", driving="d", method=m, frames=(0,), values={"psnr": (20.0,), "psnr_range2": (26.0,)}) for m in "ab"
    ]
    table = analyse(run(*both, metrics=(PSNR, old), methods=("a", "b")))
    assert table.summary("a", "psnr_range2").mean == 26.0
    assert [c.metric for c in table.comparisons] == ["psnr"]


def test_signed_values_have_no_ratio_and_the_metrics_own_direction():
    for metric, value, copy, standing in (
        (FLICKER, -0.29, -0.81, "worse"), (FLICKER, -0.81, -0.29, "better"), (FLICKER, 0.2, 0.4, "better"), (FLICKER, 0.2, 0.0, "worse"),
        (CSIM, -0.1, -0.2, "better"), (CSIM, 0.3, 0.6, "worse"), (CSIM, 0.3, 0.3, "same"),
    ):  # fmt: skip
        scores = [scored("p", [v], metric=metric.key, method=m) for m, v in (("a", value), ("copy", copy))]
        found = run(*scores, metrics=(metric,), methods=("a", "copy"))
        summary = analyse(found).summary("a", metric.key)
        assert (summary.ratio, summary.against_copy) == (None, standing) == against_copy(found, metric)
        words = "same as copy" if standing == "same" else f"{standing} than copy"
        assert [cell.ratio for cell in results(found, analyse(found))[0][1]] == [words, ""]
        written = summarise(found)
        assert written["metrics"] == {metric.title: [value, copy, None]}
        assert (written["better"], written["against_copy"]) == ({metric.title: metric.better}, {metric.title: standing})


def test_metrics_that_can_be_negative_say_so():
    tools = RulerFiles(identity=Path(__file__))  # hashed, not opened
    found = catalogue(tools, Settings(protocol="reconstruction", legacy_range=True))
    assert {m.key for m in found} >= {"l1", "ssim", "flicker", "csim", "expression_correlation"}
    assert all(m.signed == m.range.startswith(("-", "any")) for m in found)


def test_holm_by_hand():
    like = compare({"p": scored("p", [1.0])}, {"p": scored("p", [1.0], method="b")}, CSIM)
    wanted = [pytest.approx(0.06), pytest.approx(0.03), None, pytest.approx(0.06)]
    assert statistics.holm([0.04, 0.01, None, 0.03]) == wanted
    assert [c.adjusted for c in statistics._adjusted([replace(like, p=p) for p in (0.04, 0.01, None, 0.03)])] == wanted


def test_ratio_to_copy_on_common_frames():
    a = [scored("p", [1.0, 5.0], metric="l1")]
    copy = [scored("p", [2.0, None], metric="l1", method="copy")]
    table = analyse(run(*a, *copy, metrics=(L1,), methods=("a", "copy")))
    assert table.summary("a", "l1").ratio == 0.5
    assert table.summary("copy", "l1").ratio is None
    louder = analyse(
        run(scored("p", [20.0], metric="psnr"), scored("p", [10.0], metric="psnr", method="copy"), metrics=(PSNR,), methods=("a", "copy"))
    )
    assert louder.summary("a", "psnr").ratio is None


def test_rotation_bins_leave_out_frames_without_face():
    scores = [scored(f"p{i}", [1.0, 2.0, 3.0, None], rotation=(1.0, 4.0, None, 12.0)) for i in range(6)]
    found = over_rotation(scores, CSIM)
    assert [(b.low, b.high, b.frames, b.clips) for b in found] == [(0.0, 5.0, 12, 6)]
    assert (found[0].rotation, found[0].mean) == (2.5, 1.5)
    assert found[0].interval is not None
    edge = over_rotation([scored("p", [1.0], rotation=(5.0,))], CSIM)
    assert (edge[0].low, edge[0].interval) == (5.0, None)
    assert over_rotation(scores, FLICKER) == []


def test_same_figures_every_time_and_in_any_order():
    first = fake_evaluation(methods=2, pairs=12)
    again = replace(first, scores=tuple(reversed(first.scores)))
    a, b = analyse(first), analyse(again)
    assert a == analyse(first)
    for x, y in zip(a.summaries, b.summaries, strict=True):
        assert (x.mean, x.ratio) == pytest.approx((y.mean, y.ratio))
        assert x.interval is None or x.interval.low == pytest.approx(y.interval.low)


def test_pairs_without_values_are_absent():
    assert pair_means({"p": scored("p", [None]), "q": scored("q", [1.0, None])}, CSIM) == {"q": 1.0}
