"""Writes the report of an evaluation run: evaluation.json, report.md and report.html, a page of one file that needs no network.

All three have the same tables. The page also has plots and strips, and the JSON file has every value. Strips are rows of pictures of
those pairs that are chosen to be shown.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image, UnidentifiedImageError

from dagan.checks import json_text, printable
from dagan.evaluate import plots, tables
from dagan.evaluate.records import Evaluation, Metric, finite
from dagan.evaluate.statistics import FEWEST, LEGACY, Bin, Statistics, analyse, by_method, pair_means
from dagan.media.output import atomic_output

# Pairs are ranked by the first of these metrics that was measured: what looks right to people comes before geometry and pixels.
RANKING = ("lpips", "lpips_squeeze", "akd", "csim", "aed", "prmse", "ssim", "l1")
WIDEST = 800  # Pixels. Wider strips are made smaller, so that a page stays small.


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A pair that is shown."""

    pair: str
    """The pair's name."""
    why: str
    """The reason, "best", "median" or "worst"."""
    value: float
    """The pair's mean on the metric that ranks pairs."""


@dataclass(frozen=True, kw_only=True)
class Strip:
    """A strip of pictures."""

    name: str
    """What it shows: "source", "driving" or a method's name."""
    uri: str | None
    """The picture as a data URI; None where there is no readable file."""
    share: float = 1.0
    """Its width as a share, in (0, 1], of the pair's widest strip."""
    widest: int = 1
    """The width of that widest strip in pixels."""


def ranking_metric(metrics: Sequence[Metric], measured: Mapping[str, Mapping[str, float]]) -> Metric | None:
    """Returns the metric that ranks pairs: the first of RANKING that has values (key -> pair -> mean), or else the first that has."""
    known = {metric.key: metric for metric in metrics if measured.get(metric.key)}
    return next((known[key] for key in RANKING if key in known), next(iter(known.values()), None))


def choose(means: Mapping[str, float], metric: Metric) -> list[Shown]:
    """Chooses the best, median and worst of pairs with these means, no pair twice: two of each from nine pairs on, otherwise one."""
    order = sorted(means, key=lambda pair: (means[pair] if metric.better == "lower" else -means[pair], pair))
    each = 2 if len(order) >= 9 else 1
    middle = max(0, (len(order) - each) // 2)
    wanted = [(pair, "best") for pair in order[:each]]
    wanted += [(pair, "median") for pair in order[middle : middle + each]] if len(order) > 2 else []
    wanted += [(pair, "worst") for pair in order[::-1][:each][::-1]] if len(order) > 1 else []
    return [Shown(pair=pair, why=why, value=means[pair]) for pair, why in wanted]


def strips(folder: Path, evaluation: Evaluation, pair: str) -> list[Strip]:
    """Returns the strips of a pair: source, driving and every method. `folder` holds the run's pictures. Without any, the list is empty."""
    if not any(pair in pictures for pictures in evaluation.pictures.values()):
        return []
    names = ("source", "driving", *evaluation.methods)
    read = {name: _read(folder, evaluation.pictures.get(name, {}).get(pair)) for name in names}
    widest = max((found[1] for found in read.values() if found), default=1)
    return [
        Strip(name=name, uri=found[0] if found else None, share=found[1] / widest if found else 1.0, widest=widest)
        for name, found in read.items()
    ]


def _read(folder: Path, name: str | None) -> tuple[str, int] | None:
    """Returns a picture as a data URI, and its width before it was made smaller; None for a missing, broken or foreign file."""
    if name is None:
        return None
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):  # Only pictures of the run may go into a page that will be passed on.
        return None
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            if picture.format == "JPEG" and width <= WIDEST:
                data = path.read_bytes()
            else:
                smaller = picture.convert("RGB")
                smaller.thumbnail((WIDEST, max(1, height)))
                buffer = io.BytesIO()
                smaller.save(buffer, "JPEG", quality=88)
                data = buffer.getvalue()
    except (OSError, UnidentifiedImageError):
        return None
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii"), width


JSON, MARKDOWN, HTML = FILES = ("evaluation.json", "report.md", "report.html")
PROTOCOLS = {
    "reconstruction": "Reconstruction: a frame of a clip is animated by the clip's other frames; perfect results equal the driving frames.",
    "cross-identity": "Cross-identity: a picture of one person is animated by a clip of another; no true result exists to compare with.",
}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """The plots of one metric."""

    metric: Metric
    """The metric."""
    distribution: Markup
    """How the values of pairs are distributed."""
    rotation: Markup
    """How values change with the head's rotation; empty for metrics that are not per frame, and where no rotation is known."""


@dataclass(frozen=True, kw_only=True)
class ShownPair:
    """A pair that is shown, with its strips."""

    shown: Shown
    """The pair, and why it is shown."""
    strips: list[Strip]
    """Its strips."""
    values: Mapping[str, str]
    """For each method its mean on the ranking metric, as text."""


def write_report(folder: Path, evaluation: Evaluation, overwrite: bool) -> list[Path]:
    """Writes evaluation.json, report.md and report.html into `folder`, which also holds the run's pictures. Returns the three files.

    All are written or none. Raises InputError when one exists and `overwrite` is False, or when the folder cannot be written.
    """
    files = [folder / name for name in FILES]
    with ExitStack() as stack:
        # All are opened before anything is computed or written, so that one that exists already leaves the others as they are.
        partials = [stack.enter_context(atomic_output(path, overwrite)) for path in files]
        statistics = analyse(evaluation)
        page = _page(folder, evaluation, statistics)
        texts = (_json(evaluation, statistics), _render("report.md.j2", page), _render("report.html.j2", page))
        for partial, text in zip(partials, texts, strict=True):
            partial.write_text(printable(text), encoding="utf-8")
    return files


def _json(evaluation: Evaluation, statistics: Statistics) -> str:
    return json_text(finite(asdict(evaluation) | {"statistics": asdict(statistics)}))


def _page(folder: Path, evaluation: Evaluation, statistics: Statistics) -> dict[str, Any]:
    """Returns everything that the templates name."""
    table = by_method(evaluation)
    means = {metric.key: {method: pair_means(table[method], metric) for method in evaluation.methods} for metric in evaluation.metrics}
    decimals = tables.decimals_of(evaluation, statistics)
    first = evaluation.methods[0] if evaluation.methods else ""
    ranking = ranking_metric(evaluation.metrics, {key: found.get(first, {}) for key, found in means.items()})
    shown = []
    for pick in choose(means[ranking.key][first], ranking) if ranking else []:
        found = strips(folder, evaluation, pick.pair)
        if found and ranking:
            values = {
                method: tables.number(means[ranking.key][method].get(pick.pair), decimals[ranking.key]) for method in evaluation.methods
            }
            shown.append(ShownPair(shown=pick, strips=found, values=values))
    measured = [m for m in evaluation.metrics if any(means[m.key].values()) and not m.key.endswith(LEGACY)]
    pair_metrics, rows = tables.pair_rows(evaluation, decimals)
    return {
        "evaluation": evaluation, "statistics": statistics, "protocol": PROTOCOLS[evaluation.protocol], "first": first,
        "pairs": len({s.pair for s in evaluation.scores}), "clips": len({s.driving for s in evaluation.scores}),
        "verdicts": tables.verdicts(statistics, evaluation.metrics), "results": tables.results(evaluation, statistics),
        "comparisons": tables.comparisons(evaluation, statistics), "coverage": tables.coverage(evaluation, table),
        "counts": tables.value_counts(evaluation, statistics), "problems": [s for s in evaluation.scores if s.problem],
        "figures": [_figure(metric, evaluation, statistics, means[metric.key]) for metric in measured],
        "ranking": ranking, "shown": shown, "pair_metrics": pair_metrics, "rows": rows, "all_rows": len(evaluation.scores),
        "arrows": tables.ARROWS, "fewest": FEWEST, "most_dots": plots.MOST_DOTS, "alpha": tables.ALPHA, "key": plots.key,
    }  # fmt: skip


def _figure(metric: Metric, evaluation: Evaluation, statistics: Statistics, means: Mapping[str, Mapping[str, float]]) -> Figure:
    summaries = {method: statistics.summary(method, metric.key) for method in evaluation.methods}
    places = tables.digits(metric, (s.mean for s in summaries.values()))
    said = "; ".join(
        f"{method} {tables.number(s.mean, places)} {tables.span(s.interval, places)}".strip() for method, s in summaries.items()
    )
    curves = statistics.rotation.get(metric.key, {})
    return Figure(
        metric=metric,
        distribution=plots.distribution(
            {method: list(found.values()) for method, found in means.items()},
            {method: s.interval for method, s in summaries.items()}, f"{metric.title} of the pairs. Means: {said}.",
        ),
        rotation=plots.over_rotation(curves, f"{metric.title} over head rotation. {_curves(curves, places)}"),
    )  # fmt: skip


def _curves(curves: Mapping[str, Sequence[Bin]], places: int) -> str:
    """Describes the plot in words: each method at its smallest and its largest rotation."""
    ends = {method: (bins[0], bins[-1]) for method, bins in curves.items() if bins}
    return " ".join(
        f"{method}: {tables.number(a.mean, places)} at {a.low:.0f} to {a.high:.0f} degrees, "
        f"{tables.number(b.mean, places)} at {b.low:.0f} to {b.high:.0f} degrees."
        for method, (a, b) in ends.items()
    )


def _render(template: str, page: Mapping[str, Any]) -> str:
    environment = Environment(
        loader=PackageLoader("dagan.evaluate.pages"), autoescape=template.endswith(".html.j2"), undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["cell"] = _cell
    return environment.get_template(template).render(page)


def _cell(text: object) -> str:
    """Returns text that cannot end a cell of a Markdown table, nor become markup."""
    plain = " ".join(str(text).split())
    for mark in "\\`*_[]|<>&":
        plain = plain.replace(mark, "\\" + mark)
    return plain
