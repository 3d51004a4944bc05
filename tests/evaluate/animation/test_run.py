"""Whole runs with a tiny model on small clips: figures, results of other programs, taking up a stopped run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from conftest import moving_blob
from dagan.data.clips import clips_for
from dagan.errors import InputError
from dagan.evaluate.methods import CopySpec, ResultsSpec
from dagan.evaluate.pairs import draw_pairs, self_pairs
from dagan.evaluate.records import Evaluation, PairScores, load, save
from dagan.evaluate.rulers import RulerFiles, Settings
from dagan.evaluate.run import evaluate
from dagan.media.video import open_video
from fake_evaluation import model_spec
from onnx_networks import onnx_scaling

Write = Callable[[Path, list[np.ndarray]], None]
REBUILD = Settings(protocol="reconstruction", every=2, size=64)
CROSS = Settings(protocol="cross-identity", every=2, size=64)


@pytest.fixture
def clips(tmp_path: Path, write_clip: Write) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    for i in range(3):
        write_clip(folder / f"id{i}#v#0.mp4", moving_blob(i, 9 + 2 * i))
    return folder


def of(run: Evaluation, method: str, driving: str) -> PairScores:
    return next(s for s in run.scores if s.method == method and s.driving == driving)


def test_copy_is_measured_as_scikit_image_does(clips: Path) -> None:
    run = evaluate(self_pairs(clips_for(clips, 0)), [CopySpec()], RulerFiles(), replace(REBUILD, legacy_range=True))
    with open_video(clips / "id1#v#0.mp4") as video:
        pictures = [frame.image for frame in video]
    scores = of(run, "copy", "id1#v#0.mp4")
    assert scores.frames == (2, 4, 6, 8, 10)  # not the source itself
    for key, data_range in (("psnr", 1), ("psnr_range2", 2)):
        expected = [peak_signal_noise_ratio(pictures[0] / 255.0, pictures[i] / 255.0, data_range=data_range) for i in scores.frames]
        assert scores.values[key] == pytest.approx(expected, abs=1e-4)
    settings = {"data_range": 1, "channel_axis": 2, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = [structural_similarity(pictures[0] / 255.0, pictures[i] / 255.0, **settings) for i in scores.frames]
    assert scores.values["ssim"] == pytest.approx(expected, abs=1e-4)
    assert len(scores.values["flicker"]) == 1
    assert {m.key for m in run.metrics if m.per != "set"} == set(scores.values)  # 64 pixels are too few for MS-SSIM


def test_perfect_results_are_perfect(clips: Path, dot_faces: None) -> None:
    methods = [ResultsSpec("same", clips), CopySpec()]
    run = evaluate(self_pairs(clips_for(clips, 0)), methods, RulerFiles(), replace(REBUILD, every=1))
    for scores in (s for s in run.scores if s.method == "same"):
        values = scores.values
        assert set(values["l1"]) == {0.0}
        assert set(values["psnr"]) == {100.0}
        assert values["flicker"] == (0.0,)
        assert values["expression_correlation"] == pytest.approx((1,))
        for key in ("akd", "akd68", "prmse", "gaze", "missing"):
            assert values[key] == pytest.approx((0,) * len(scores.frames), abs=1e-3)
        assert scores.problem is None
        assert scores.rotation == pytest.approx((0,) * len(scores.frames), abs=0.1)
    copied = of(run, "copy", "id1#v#0.mp4")
    assert min(copied.values["akd"]) > 0.1  # the blob has moved
    assert copied.values["background"] == (0.0,)
    assert copied.values["expression_correlation"] == (0.0,)


def test_landmark_distances_are_in_pixels_at_256(clips: Path, dot_faces: None, tmp_path: Path, write_clip: Write) -> None:
    """Faces that stand for one of a bright square: 4 pixels to the right of 64 are 16 of 256."""
    square = np.zeros((64, 64, 3), np.uint8)
    square[16:56, 8:40] = 255
    folders = (tmp_path / "true", tmp_path / "moved")
    for folder, shift in zip(folders, (0, 4), strict=True):
        (folder / "a").mkdir(parents=True)
        for i in range(3):
            Image.fromarray(np.roll(square, shift, 1)).save(folder / "a" / f"{i}.png")
    methods, files = [ResultsSpec("moved", folders[1])], RulerFiles()
    run = evaluate(self_pairs(clips_for(folders[0], 0)), methods, files, replace(REBUILD, every=1))
    assert run.scores[0].values["akd"] == pytest.approx((16, 16), abs=1e-3)


def test_faces_that_are_lost_are_counted(clips: Path, dot_faces: None, tmp_path: Path, write_clip: Write) -> None:
    pictures = moving_blob(1, 11)
    folder = tmp_path / "dark"
    folder.mkdir()
    write_clip(folder / "id1#v#0.mp4", [p if i < 6 else p // 50 for i, p in enumerate(pictures)])
    pairs = [p for p in self_pairs(clips_for(clips, 0)) if p.driving.name == "id1#v#0.mp4"]
    run = evaluate(pairs, [ResultsSpec("dark", folder)], RulerFiles(), REBUILD)
    scores = run.scores[0]
    assert scores.frames == (2, 4, 6, 8, 10)
    assert scores.missing == {"result": 3, "driving": 0}
    assert scores.values["missing"] == (0, 0, 1, 1, 1)
    assert [v is None for v in scores.values["akd"]] == [False, False, True, True, True]
    assert None not in scores.values["l1"]


@pytest.mark.slow
def test_results_that_do_not_fit(clips: Path, tmp_path: Path, write_clip: Write) -> None:
    """Shorter, longer, of another size, missing and damaged: each said, the rest measured."""
    folder = tmp_path / "peer"
    folder.mkdir()
    write_clip(folder / "id0#v#0.mp4", moving_blob(0, 5))
    big = [np.asarray(Image.fromarray(p).resize((96, 80))) for p in moving_blob(1, 14)]
    write_clip(folder / "id1#v#0--id1#v#0.mp4", big)
    heard: list[str] = []
    pairs = self_pairs(clips_for(clips, 0))
    run = evaluate(pairs, [ResultsSpec("peer", folder), CopySpec()], RulerFiles(), REBUILD, folder=tmp_path / "run", warn=heard.append)
    short = of(run, "peer", "id0#v#0.mp4")
    assert short.frames == (2, 4)
    assert short.problem == "result id0#v#0.mp4 has 5 frames, its driving clip 9: only these were measured"
    long = of(run, "peer", "id1#v#0.mp4")
    assert long.frames == (2, 4, 6, 8, 10)
    assert long.problem is not None
    assert "14 frames, its driving clip 11: the frames beyond were not measured" in long.problem
    assert heard == ["peer: the middle of results of 96 x 80 pixels are resized to 64 x 64 (1 of 3 pairs)"]
    gone = of(run, "peer", "id2#v#0.mp4")
    assert gone.frames == ()
    assert gone.problem is not None
    assert "holds no video or image folder named 'id2#v#0'" in gone.problem
    assert all(of(run, "copy", f"id{i}#v#0.mp4").problem is None for i in range(3))
    assert gone.pair not in run.pictures["peer"]
    # The strip of the short one shows the same frames, those without a result in grey.
    strips = {m: np.asarray(Image.open(tmp_path / "run" / run.pictures[m][short.pair])) for m in ("peer", "driving", "source")}
    assert {s.shape for s in strips.values()} == {(128, 4 * 128, 3)}
    assert np.ptp(strips["peer"][:, 3 * 128 :]) < 8
    assert np.ptp(strips["driving"][:, 3 * 128 :]) > 50

    write_clip(folder / "id2#v#0.mp4", moving_blob(2, 13))
    (folder / "id0#v#0.mp4").write_bytes(b"no video at all")
    again = evaluate(pairs, [ResultsSpec("peer", folder), CopySpec()], RulerFiles(), REBUILD, folder=tmp_path / "run")
    assert of(again, "peer", "id2#v#0.mp4").problem is None  # looked for again
    damaged = of(again, "peer", "id0#v#0.mp4")
    assert damaged.frames == ()
    assert damaged.problem
    assert of(again, "copy", "id0#v#0.mp4") == of(run, "copy", "id0#v#0.mp4")


def test_nothing_to_measure_is_an_error(clips: Path, tmp_path: Path, write_clip: Write) -> None:
    (tmp_path / "peer").mkdir()
    write_clip(tmp_path / "peer" / "other.mp4", moving_blob(0, 5))
    with pytest.raises(InputError, match="nothing could be measured; the first of 3 problems: no result"):
        evaluate(self_pairs(clips_for(clips, 0)), [ResultsSpec("peer", tmp_path / "peer")], RulerFiles(), REBUILD)


@pytest.mark.slow
def test_cross_identity_of_a_model(clips: Path, tiny_model: Path, dot_faces: None) -> None:
    found = clips_for(clips, 0)
    pairs = draw_pairs(found, found, seed=0)
    methods = [model_spec(tiny_model), CopySpec()]
    run = evaluate(pairs, methods, RulerFiles(), CROSS)
    assert {"l1", "akd"}.isdisjoint(m.key for m in run.metrics)  # no true result to compare with
    ours = next(s for s in run.scores if s.method == "tiny")
    assert ours.frames[0] == 0  # another clip's first frame is measured too
    assert set(ours.values) == {m.key for m in run.metrics if m.per != "set"}
    absolute = evaluate(pairs, methods, RulerFiles(), replace(CROSS, relative=False))
    assert next(s for s in absolute.scores if s.method == "tiny").values != ours.values
    assert [s for s in absolute.scores if s.method == "copy"] == [s for s in run.scores if s.method == "copy"]


def test_relative_motion_starts_at_the_source(clips: Path, tiny_model: Path, tmp_path: Path) -> None:
    """With the first frame as reference, the first result is the source as the model draws it: as in absolute motion of itself."""
    from dagan import Animator
    from dagan import load as load_model

    found = clips_for(clips, 0)
    pair = next(p for p in draw_pairs(found, found, seed=0))
    spec = model_spec(tiny_model, keypoints="learnt")
    run = evaluate([pair], [spec], RulerFiles(), replace(CROSS, every=1), folder=tmp_path / "run")
    animator = Animator(load_model(tiny_model, "cpu"), limit_motion=False, keypoints="learnt")
    with open_video(pair.source.path) as source, open_video(pair.driving.path) as driving:
        animator.set_source(next(iter(source)).image)
        results = [animator.animate(frame.image) for frame in driving]
    strip = np.asarray(Image.open(tmp_path / "run" / run.pictures["tiny"][pair.name]))
    shown = (0, round((len(results) - 1) / 5), len(results) - 1)
    for place, number in zip((0, 1, 5), shown, strict=True):
        expected = np.asarray(Image.fromarray(results[number]).resize((128, 128), Image.Resampling.BOX)).astype(float)
        assert np.abs(strip[:, place * 128 : (place + 1) * 128] - expected).mean() < 6  # JPEG


@pytest.mark.slow
def test_fid_of_equal_sets_is_zero(clips: Path, tmp_path: Path) -> None:
    files, settings = RulerFiles(fid=onnx_scaling(tmp_path / "n.onnx", 1.0)), replace(REBUILD, fid=True)
    pairs, methods = self_pairs(clips_for(clips, 0)), [ResultsSpec("same", clips), CopySpec()]
    run = evaluate(pairs, methods, files, settings, folder=tmp_path / "run")
    assert run.totals["same"]["fid"] == pytest.approx(0, abs=1e-6)
    assert run.totals["copy"]["fid"] > 1e-6
    assert "not comparable to Inception" in run.metrics[-1].title
    assert evaluate(pairs, methods, files, settings).totals == run.totals  # without a cache
    assert evaluate(pairs, methods, files, settings, folder=tmp_path / "run").totals == run.totals  # from it


@pytest.mark.slow
def test_what_was_measured_is_taken_up(clips: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = self_pairs(clips_for(clips, 0))
    methods = [model_spec(tiny_model), CopySpec()]
    first = evaluate(pairs, methods, RulerFiles(), REBUILD, folder=tmp_path / "run")
    save(tmp_path / "e.json", first)
    assert load(tmp_path / "e.json") == first
    measured: list[tuple[str, list[str]]] = []
    real = evaluate.__globals__["measure_pair"]

    def spy(pair, methods, rulers, settings):  # type: ignore[no-untyped-def]
        measured.append((pair.name, list(methods)))
        return real(pair, methods, rulers, settings)

    monkeypatch.setattr("dagan.evaluate.run.measure_pair", spy)
    assert evaluate(pairs, methods, RulerFiles(), REBUILD, folder=tmp_path / "run") == first
    assert measured == []
    (tmp_path / "run" / first.pictures["tiny"][pairs[0].name]).unlink()
    os.utime(pairs[2].driving.path)  # a clip that changed
    assert evaluate(pairs, methods, RulerFiles(), REBUILD, folder=tmp_path / "run").scores == first.scores
    assert measured == [(pairs[0].name, ["tiny"]), (pairs[2].name, ["tiny", "copy"])]
    measured.clear()
    evaluate(pairs, methods, RulerFiles(), replace(REBUILD, every=3), folder=tmp_path / "run")
    assert len(measured) == 3  # another setting
    for file in (tmp_path / "run" / "cache").iterdir():
        file.write_text("{ cut off")
    assert evaluate(pairs, methods, RulerFiles(), REBUILD, folder=tmp_path / "run").scores == first.scores


@pytest.mark.slow
def test_workers_change_no_figure(clips: Path, tiny_model: Path) -> None:
    pairs = self_pairs(clips_for(clips, 0))
    methods = [model_spec(tiny_model), CopySpec()]
    assert evaluate(pairs, methods, RulerFiles(), REBUILD, workers=2) == evaluate(pairs, methods, RulerFiles(), REBUILD)


@pytest.mark.slow
def test_a_cluster_changes_no_figure(clips: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", TESTS)  # Its workers import the stand-ins of these tests on their own.
    pairs = self_pairs(clips_for(clips, 0))
    methods = [model_spec(tiny_model), CopySpec()]
    alone = evaluate(pairs, methods, RulerFiles(), REBUILD)
    assert evaluate(pairs, methods, RulerFiles(), REBUILD, workers=2, cluster="local") == alone


@pytest.mark.slow
def test_workers_report_bad_input(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    methods = [model_spec(tmp_path / "broken.safetensors")]
    with pytest.raises(InputError, match="broken"):
        evaluate(self_pairs(clips_for(clips, 0)), methods, RulerFiles(), REBUILD, workers=2)


TESTS = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
KILLED = """
import sys
from pathlib import Path
from dagan.data.clips import clips_for
from dagan.evaluate.methods import CopySpec
from dagan.evaluate.pairs import self_pairs
from dagan.evaluate.rulers import RulerFiles, Settings
from dagan.evaluate.run import evaluate
from fake_evaluation import model_spec

clips, model, folder = map(Path, sys.argv[1:])
evaluate(self_pairs(clips_for(clips, 0)), [model_spec(model), CopySpec()], RulerFiles(),
         Settings(protocol="reconstruction", every=2, size=64), folder=folder)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_figures(clips: Path, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-c", KILLED, str(clips), str(tiny_model), str(folder)]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": TESTS})
    deadline = time.monotonic() + 120
    while process.poll() is None and not list(folder.glob("cache/[!.]*.json")) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
    process.wait()
    kept = {file: file.stat().st_mtime_ns for file in folder.glob("cache/[!.]*.json")}
    assert 1 <= len(kept) < 6  # killed in the middle
    pairs = self_pairs(clips_for(clips, 0))
    methods = [model_spec(tiny_model), CopySpec()]
    resumed = evaluate(pairs, methods, RulerFiles(), REBUILD, folder=folder)
    assert len(list(folder.glob("cache/[!.]*.json"))) == 6
    assert all(file.stat().st_mtime_ns == changed for file, changed in kept.items())  # not measured again
    assert resumed == evaluate(pairs, methods, RulerFiles(), REBUILD, folder=tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "message"), [({"every": 0}, "--every is 0"), ({"size": 8}, "--size is 8"), ({"every": 99}, "nothing could be measured")]
)
def test_settings_that_do_not_fit(clips: Path, change: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(self_pairs(clips_for(clips, 0)), [CopySpec()], RulerFiles(), replace(REBUILD, **change))  # type: ignore[arg-type]


def test_two_methods_need_two_names(clips: Path) -> None:
    with pytest.raises(InputError, match="a name of its own"):
        evaluate(self_pairs(clips_for(clips, 0)), [CopySpec(), CopySpec()], RulerFiles(), REBUILD)


def test_expressions_are_told_from_all_frames_together(clips: Path, dot_faces: None) -> None:
    methods = [ResultsSpec("same", clips), CopySpec()]
    settings = replace(REBUILD, every=1)
    run = evaluate(self_pairs(clips_for(clips, 0)), methods, RulerFiles(), settings)
    # The stand-in's mesh only moves as a whole: nothing opens, and what does not move says nothing.
    assert {row for pair in run.scores for row in pair.expressions} != set()
    assert np.abs([row for pair in run.scores for row in pair.expressions]).max() < 1e-5
