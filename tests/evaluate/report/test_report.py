"""The report of an evaluation: whole, offline, escaped, the same figures in all three files."""

import base64
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from PIL import Image

from dagan.errors import InputError
from dagan.evaluate import pages as report
from dagan.evaluate import plots, statistics, tables
from dagan.evaluate.pages import choose, ranking_metric, strips, write_report
from dagan.evaluate.records import Evaluation, PairScores, load
from dagan.evaluate.statistics import Interval, analyse, by_method, over_rotation, pair_means
from fake_evaluation import CSIM, L1, LPIPS, PSNR, fake_evaluation

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Tags in order with their attributes; fails where an end tag does not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)

    def all(self, name):
        return [attrs for tag, attrs in self.tags if tag == name]


@pytest.fixture(autouse=True, scope="module")
def few_resamples():
    """Intervals are tested elsewhere; here they only have to be the same everywhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "RESAMPLES", 999)
        yield


@pytest.fixture(scope="module")
def written(few_resamples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    run = fake_evaluation(folder, methods=4)
    return folder, run, write_report(folder, run, overwrite=False)


def test_three_files(written):
    folder, _, files = written
    assert [path.name for path in files] == ["evaluation.json", "report.md", "report.html"]
    assert {path.name for path in folder.iterdir()} == {"evaluation.json", "report.md", "report.html", "strips"}
    assert files[2].stat().st_size < 2_000_000


def test_page_needs_nothing_from_outside(written):
    page = Page(written[2][2].read_text(encoding="utf-8"))
    links = [value for _, attrs in page.tags for name, value in attrs.items() if name in ("src", "href", "srcset", "data", "action")]
    assert links
    assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in links)
    assert {link[1:] for link in links if link.startswith("#")} <= {attrs.get("id") for _, attrs in page.tags}
    css = (written[2][2].read_text(encoding="utf-8")).split("<style>")[1].split("</style>")[0]
    assert "url(" not in css
    assert "@import" not in css
    assert not page.all("link")


def test_page_is_accessible(written):
    page = Page(written[2][2].read_text(encoding="utf-8"))
    assert page.all("html") == [{"lang": "en"}]
    assert all(attrs.get("scope") in ("row", "col") for attrs in page.all("th"))
    assert all(attrs.get("alt") for attrs in page.all("img"))
    drawn = [attrs for attrs in page.all("svg") if "aria-hidden" not in attrs]
    assert len(drawn) == 7 + 6
    assert all(attrs["role"] == "img" and "lite-256" in attrs["aria-label"] for attrs in drawn)


def test_names_and_problems_are_escaped(written):
    _, _, (_, markdown, html) = written
    raw = html.read_text(encoding="utf-8")
    assert "<A&B>" not in raw
    assert "<clip03>" not in raw
    assert "peer <A&B>" in " ".join(Page(raw).text)
    assert "peer \\<A\\&B\\>" in markdown.read_text(encoding="utf-8")


def test_plots_are_well_formed(written):
    found = re.findall(r"<svg.*?</svg>", written[2][2].read_text(encoding="utf-8"), re.S)
    for text in found:
        root = ElementTree.fromstring(text)
        width, height = (float(v) for v in root.get("viewBox").split()[2:])
        for circle in root.iter("circle"):
            assert 0 <= float(circle.get("cx")) <= width
            assert 0 <= float(circle.get("cy")) <= height


def test_every_pair_is_a_dot(written):
    _, run, (_, _, html) = written
    first = next(text for text in re.findall(r"<svg.*?</svg>", html.read_text(encoding="utf-8"), re.S) if "L1 of the pairs" in text)
    assert first.count('class="dot"') == 40 * 4 - 1  # the second method has nothing for one pair
    many = plots.distribution({"a": [float(i) for i in range(3000)]}, {"a": None}, "many")
    assert many.count('class="dot"') == plots.MOST_DOTS
    assert run.methods[1] == "rgb-twin"


def test_strips_are_those_of_best_median_and_worst(written):
    folder, run, (_, _, html) = written
    means = pair_means(by_method(run)["lite-256"], LPIPS)
    order = sorted(means, key=means.get)
    captions = re.findall(r'<span class="why">(\w+)</span> (\S+)</figcaption>', html.read_text(encoding="utf-8"))
    whys = ("best", "best", "median", "median", "worst", "worst")
    assert captions == list(zip(whys, order[:2] + order[19:21] + order[-2:], strict=True))
    images = Page(html.read_text(encoding="utf-8")).all("img")
    assert len(images) == 6 * (2 + 4)
    original = (folder / run.pictures["source"][order[0]]).read_bytes()
    assert base64.b64decode(images[0]["src"].split(",")[1]) == original


def test_json_holds_every_value_and_the_statistics(written):
    _, run, (path, *_) = written
    note = json.loads(path.read_text(encoding="utf-8"))
    assert note["scores"][7]["values"]["lpips"] == list(run.scores[7].values["lpips"])
    assert note["scores"][7]["values"]["csim"] == list(run.scores[7].values["csim"])
    assert load(path) == run
    found = analyse(run)
    mean = next(s["mean"] for s in note["statistics"]["summaries"] if (s["method"], s["metric"]) == ("copy", "akd"))
    assert mean == found.summary("copy", "akd").mean
    assert {b["low"] for b in note["statistics"]["rotation"]["akd"]["lite-256"]} >= {0.0, 5.0, 10.0}


def test_same_figures_in_page_and_markdown(written):
    _, run, (_, markdown, html) = written
    page = " ".join(Page(html.read_text(encoding="utf-8")).text)
    text = markdown.read_text(encoding="utf-8")
    for metric, cells in tables.results(run, analyse(run)):
        for cell in cells:
            for part in filter(None, (cell.mean, cell.interval, cell.ratio)):
                assert part in page, metric.key
                assert part in text, metric.key
    assert sum(cell.best for _, cells in tables.results(run, analyse(run)) for cell in cells) == 8


def test_markdown_tables_have_even_rows(written):
    blocks = re.findall(r"(?:^\|.*\n)+", written[2][1].read_text(encoding="utf-8"), re.M)
    assert len(blocks) == 1 + 3 + 2 + 2
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


@pytest.mark.parametrize("protocol", ["reconstruction", "cross-identity"])
@pytest.mark.parametrize("methods", [1, 2, 6])
def test_any_number_of_methods(tmp_path, methods, protocol):
    run = fake_evaluation(methods=methods, pairs=7, protocol=protocol)
    page = Page(write_report(tmp_path, run, overwrite=False)[2].read_text(encoding="utf-8"))
    assert not page.all("img")
    assert ("comparisons" in {attrs.get("id") for attrs in page.all("section")}) == (methods > 1)
    assert all(name in " ".join(page.text) for name in run.methods)
    assert ("PSNR" in " ".join(page.text)) == (protocol == "reconstruction")


def test_few_clips_are_called_too_few(tmp_path):
    run = fake_evaluation(methods=2, pairs=5)
    page = Page(write_report(tmp_path, run, overwrite=False)[2].read_text(encoding="utf-8"))
    assert "too few clips to tell them apart" in " ".join(page.text)
    assert {cell.interval for _, cells in tables.results(run, analyse(run)) for cell in cells} == {""}
    assert {c.verdict for c in tables.comparisons(run, analyse(run))["copy"]} == {"too few"}


def test_nothing_measured(tmp_path):
    run = Evaluation(protocol="reconstruction", metrics=(L1, CSIM), methods=("a", "copy"), scores=())
    _, markdown, html = write_report(tmp_path, run, overwrite=False)
    assert "Nothing was measured." in " ".join(Page(html.read_text(encoding="utf-8")).text)
    assert "Nothing was measured." in markdown.read_text(encoding="utf-8")


def test_values_that_are_not_finite_leave_the_json_readable(tmp_path):
    run = fake_evaluation(methods=1, pairs=3)
    first = replace(run.scores[0], values={**run.scores[0].values, "psnr": (float("inf"), *run.scores[0].values["psnr"][1:])})
    path, *_ = write_report(tmp_path, replace(run, scores=(first, *run.scores[1:])), overwrite=False)
    note = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert note["scores"][0]["values"]["psnr"][:2] == [None, run.scores[0].values["psnr"][1]]
    assert next(s["missing"] for s in note["statistics"]["summaries"] if s["metric"] == "psnr") == 1


def test_existing_files_are_kept(tmp_path):
    run = fake_evaluation(methods=1, pairs=3)
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(InputError, match=r"report\.html exists already"):
        write_report(tmp_path, run, overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == "mine"
    write_report(tmp_path, run, overwrite=True)
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_interruption_leaves_nothing(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "_render", stop)
    with pytest.raises(KeyboardInterrupt):
        write_report(tmp_path / "new", fake_evaluation(methods=1, pairs=3), overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_same_report_every_time(tmp_path):
    run = fake_evaluation(tmp_path, methods=2, pairs=9)
    first = [path.read_bytes() for path in write_report(tmp_path, run, overwrite=False)]
    assert first == [path.read_bytes() for path in write_report(tmp_path, run, overwrite=True)]


def test_missing_broken_and_foreign_pictures(tmp_path):
    folder = tmp_path / "run"
    run = fake_evaluation(folder, methods=2, pairs=3)
    pair = run.scores[0].pair
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.jpg")
    (folder / "broken.jpg").write_bytes(b"no picture")
    named = {"source": "gone.jpg", "driving": "broken.jpg", "lite-256": "../secret.jpg"}
    run = replace(run, pictures=run.pictures | {name: {pair: file} for name, file in named.items()})
    found = strips(folder, run, pair)
    assert [(s.name, s.uri is None) for s in found] == [("source", True), ("driving", True), ("lite-256", True), ("copy", False)]
    assert strips(folder, run, "another") == []


def test_wide_strips_are_made_smaller_and_columns_stay_aligned(tmp_path):
    Image.new("RGB", (1600, 200), "red").save(tmp_path / "wide.png")
    Image.new("RGB", (200, 200), "red").save(tmp_path / "one.jpg")
    run = Evaluation(
        protocol="reconstruction", metrics=(), methods=("a",), scores=(),
        pictures={"source": {"p": "one.jpg"}, "driving": {"p": "wide.png"}, "a": {"p": "wide.png"}},
    )  # fmt: skip
    source, driving, _ = strips(tmp_path, run, "p")
    assert (source.share, driving.share, source.widest) == (0.125, 1.0, 1600)
    with Image.open(io.BytesIO(base64.b64decode(driving.uri.split(",")[1]))) as picture:
        assert (picture.format, picture.size) == ("JPEG", (800, 100))


def test_choice_of_pairs():
    means = {"a": 3.0, "b": 1.0, "c": 2.0}
    assert [(s.why, s.pair) for s in choose(means, L1)] == [("best", "b"), ("median", "c"), ("worst", "a")]
    assert [(s.why, s.pair) for s in choose(means, PSNR)] == [("best", "a"), ("median", "c"), ("worst", "b")]
    assert [s.why for s in choose({"a": 1.0}, L1)] == ["best"]
    assert choose({}, L1) == []
    many = choose({str(i): float(i) for i in range(9)}, L1)
    assert len({s.pair for s in many}) == 6


def test_ranking_metric_is_one_that_was_measured():
    assert ranking_metric((L1, LPIPS, CSIM), {"l1": {"p": 1.0}, "csim": {"p": 1.0}}) == CSIM
    assert ranking_metric((L1, LPIPS), {"l1": {}, "lpips": {}}) is None


def test_ticks_are_round_and_inside():
    assert plots.Axis(0.03, 0.11, 0, 1).ticks() == pytest.approx([0.04, 0.06, 0.08, 0.10])
    assert plots.Axis(-1.3, 7.2, 0, 1).ticks() == pytest.approx([0, 2, 4, 6])
    axis = plots.axis_of([2.0, 2.0], 0, 100)
    assert axis(2.0) == 50
    assert plots.axis_of([0.0, 10.0], 0, 100).low == 0
    assert plots.axis_of([0.0, 0.0], 0, 100).ticks()[0] == 0


def test_hollow_marks_have_no_interval():
    bins = fake_evaluation(methods=1, pairs=5)
    found = plots.over_rotation({"a": over_rotation(bins.scores, L1)}, "alt")
    assert 'class="mark hollow"' in found
    assert 'class="bar"' not in found


@pytest.mark.parametrize(
    ("metric", "values", "decimals"),
    [
        (L1, [0.0412, 0.11], 4),
        (CSIM, [0.85, None], 3),
        (L1, [12.3, 160.0], 1),
        (PSNR, [27.3], 2),
        (L1, [], 2),
        (L1, [1e-9], 5),
        (L1, [0.0], 2),
    ],
)
def test_digits(metric, values, decimals):
    assert tables.digits(metric, values) == decimals


def test_numbers_as_text():
    assert tables.number(-0.25, 2) == "\N{MINUS SIGN}0.25"
    assert tables.number(0.25, 1, sign=True) == "+0.2"
    assert tables.number(None, 3) == "\N{EN DASH}"
    assert tables.span(Interval(low=-1, high=2), 1, sign=True) == "[\N{MINUS SIGN}1.0, +2.0]"
    assert [tables.probability(p) for p in (None, 0.0001, 0.0123)] == ["too few", "< 0.001", "0.012"]


def test_verdict_is_too_few_where_no_p_value_could_be_small_enough():
    run = fake_evaluation(methods=2, pairs=7)
    found = tables.comparisons(run, analyse(run))["copy"]
    # Seven metrics, six clips that both have: 7 * 2 / 2^6 = 0.22.
    assert {c.verdict for c in found} == {"too few"}
    assert {c.p for c in found} == {"0.031"}
    one = replace(run, metrics=(L1,))
    assert [c.verdict for c in tables.comparisons(one, analyse(one))["copy"]] == ["lite-256"]


def test_equal_means_are_not_best():
    scores = [PairScores(pair="p", source="s", driving="d", method=m, frames=(0,), values={"l1": (0.0,)}) for m in "ab"]
    run = Evaluation(protocol="reconstruction", metrics=(L1,), methods=("a", "b"), scores=tuple(scores))
    assert [cell.best for _, cells in tables.results(run, analyse(run)) for cell in cells] == [False, False]


def test_verdicts_name_the_better_method():
    run = fake_evaluation(methods=2)
    found = {c.metric.key: c.verdict for c in tables.comparisons(run, analyse(run))["copy"]}
    assert set(found.values()) == {"lite-256"}
    swapped = replace(run, methods=("copy", "lite-256"))
    assert {c.verdict for c in tables.comparisons(swapped, analyse(swapped))["lite-256"]} == {"lite-256"}
    same = replace(run, scores=tuple(replace(s, method=m) for s in run.scores if s.method == "copy" for m in run.methods))
    assert {c.verdict for c in tables.comparisons(same, analyse(same))["copy"]} == {"none shown"}
