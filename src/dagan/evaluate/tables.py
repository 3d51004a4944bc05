"""Makes the tables of the evaluation report: figures as text, the same for HTML and Markdown."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from dagan.evaluate.records import Evaluation, Metric, PairScores
from dagan.evaluate.statistics import Comparison, Interval, Statistics, Summary, pair_means

ALPHA = 0.05  # A difference is shown where the adjusted p-value is below this.
NONE = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
TOO_FEW = "too few"
ARROWS = {"lower": "\N{DOWNWARDS ARROW}", "higher": "\N{UPWARDS ARROW}"}
MOST_ROWS = 1000  # The table of pairs has at most so many rows, or the page would be large and slow; evaluation.json holds all.


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A method's mean on a metric, as text."""

    mean: str
    interval: str = ""
    """The interval; empty where there is none."""
    ratio: str = ""
    """How the mean compares with copy's on what both have; empty where there is none.

    Such a text is "0.57 x copy, better", or only "better than copy" where a ratio says nothing.
    """
    best: bool = False
    """Whether no method has a better mean and one has a worse."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A row of a paired comparison of the methods a and b, as text: `a` and `b` are their mean values, `difference` is a minus b."""

    metric: Metric
    a: str
    b: str
    difference: str
    interval: str
    p: str
    adjusted: str
    wins: str
    extent: str
    """How many pairs, clips and frames were compared."""
    verdict: str
    """The better method's name, "none shown", or TOO_FEW."""


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How much of a method was measured."""

    method: str
    pairs: int
    """The number of pairs."""
    frames: int
    """The number of frames."""
    missing: Mapping[str, int]
    """The number of frames without a face, in results and in driving frames."""
    empty: int
    """The number of pairs without any value."""
    problems: int
    """The number of pairs with a problem."""


@dataclass(frozen=True, kw_only=True)
class PairRow:
    """One method on one pair, as text."""

    pair: str
    method: str
    frames: int
    """The number of frames that were measured."""
    rotation: str
    """The median rotation of the head in degrees."""
    values: tuple[str, ...]
    """The values, in the order of the metrics that have values per pair."""


def digits(metric: Metric, values: Iterable[float | None]) -> int:
    """Returns the number of decimals. The smallest value gets three significant figures, the largest at most four, and decibels get two."""
    if metric.unit == "dB":
        return 2
    sizes = [2 - math.floor(math.log10(abs(v))) for v in values if v and math.isfinite(v)]
    return min(5, max(0, min(max(sizes), min(sizes) + 1))) if sizes else 2


def number(value: float | None, decimals: int, sign: bool = False) -> str:
    """Writes a number with a true minus sign; None becomes a dash."""
    if value is None:
        return NONE
    return f"{value:{'+' if sign else ''}.{decimals}f}".replace("-", MINUS)


def span(interval: Interval | None, decimals: int, sign: bool = False) -> str:
    return f"[{number(interval.low, decimals, sign)}, {number(interval.high, decimals, sign)}]" if interval else ""


def probability(p: float | None) -> str:
    return TOO_FEW if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def decimals_of(evaluation: Evaluation, statistics: Statistics) -> dict[str, int]:
    """Returns the number of decimals of each metric, which is the same wherever its values stand."""
    return {
        metric.key: digits(metric, (statistics.summary(method, metric.key).mean for method in evaluation.methods))
        for metric in evaluation.metrics
    }


def results(evaluation: Evaluation, statistics: Statistics) -> list[tuple[Metric, list[Cell]]]:
    """Returns a row for each metric that any method has, with a cell for each method."""
    rows = []
    for metric in evaluation.metrics:
        row = [statistics.summary(method, metric.key) for method in evaluation.methods]
        known = [summary.mean for summary in row if summary.mean is not None]
        if not known:
            continue
        places = digits(metric, known)
        best = min(known) if metric.better == "lower" else max(known)
        rows.append((
            metric,
            [
                Cell(
                    mean=number(s.mean, places), interval=span(s.interval, places),
                    ratio=_beside_copy(s),
                    best=s.mean == best and len(set(known)) > 1,
                )
                for s in row
            ],
        ))  # fmt: skip
    return rows


def _beside_copy(s: Summary) -> str:
    if s.against_copy is None:
        return ""
    words = "same as copy" if s.against_copy == "same" else f"{s.against_copy} than copy"
    return words if s.ratio is None else f"{s.ratio:.2f} \N{MULTIPLICATION SIGN} copy, {s.against_copy}"


def comparisons(evaluation: Evaluation, statistics: Statistics) -> dict[str, list[Compared]]:
    """Returns, for each other method, the rows of the first method against it."""
    metrics = {metric.key: metric for metric in evaluation.metrics}
    tables: dict[str, list[Compared]] = {}
    for c in statistics.comparisons:
        metric = metrics[c.metric]
        places = digits(metric, (c.a_mean, c.b_mean))
        # A difference may be much smaller than the two values.
        finer = min(5, max(places, digits(metric, (c.difference,)) - 1))
        tables.setdefault(c.b, []).append(Compared(
            metric=metric, a=number(c.a_mean, places), b=number(c.b_mean, places), difference=number(c.difference, finer, sign=True),
            interval=span(c.interval, finer, sign=True) or TOO_FEW, p=probability(c.p), adjusted=probability(c.adjusted),
            wins=f"{100 * c.wins:.0f} %", extent=_extent(c, metric), verdict=verdict(c, metric, statistics.tested),
        ))  # fmt: skip
    return tables


def verdict(c: Comparison, metric: Metric, tested: int) -> str:
    """Returns the better method's name, "none shown", or TOO_FEW.

    TOO_FEW means that even the smallest p-value of so many clips, 2 / 2^clips, would not show anything among `tested` comparisons.
    """
    if c.adjusted is not None and c.adjusted < ALPHA and c.difference != 0:
        return c.a if (c.difference > 0) == (metric.better == "higher") else c.b
    return TOO_FEW if c.adjusted is None or 2.0 ** (1 - c.clips) * tested >= ALPHA else "none shown"


def verdicts(statistics: Statistics, metrics: Iterable[Metric]) -> dict[str, str]:
    """Returns, for each other method, one sentence that counts the verdicts."""
    by_key = {metric.key: metric for metric in metrics}
    counts: dict[str, Counter[str]] = {}
    for c in statistics.comparisons:
        counts.setdefault(c.b, Counter())[verdict(c, by_key[c.metric], statistics.tested)] += 1
    first = statistics.comparisons[0].a if statistics.comparisons else ""
    sentences = {}
    for other, count in counts.items():
        if count[TOO_FEW] == count.total():
            sentences[other] = f"{first} against {other}: too few clips to tell them apart."
            continue
        sentences[other] = (
            f"{first} against {other}, {count.total()} metrics: better in {count[first]}, worse in {count[other]}, "
            f"no difference shown in {count['none shown']}" + (f", too few clips in {count[TOO_FEW]}" if count[TOO_FEW] else "") + "."
        )
    return sentences


def coverage(evaluation: Evaluation, table: Mapping[str, Mapping[str, PairScores]]) -> list[Coverage]:
    rows = []
    for method in evaluation.methods:
        scores = table[method].values()
        rows.append(Coverage(
            method=method, pairs=len(scores), frames=sum(len(s.frames) for s in scores),
            missing={where: sum(s.missing.get(where, 0) for s in scores) for where in ("result", "driving")},
            empty=sum(not any(s.values.values()) for s in scores), problems=sum(s.problem is not None for s in scores),
        ))  # fmt: skip
    return rows


def value_counts(evaluation: Evaluation, statistics: Statistics) -> list[tuple[Metric, list[str]]]:
    """Returns, for each metric and method, "measured of all" values."""
    rows = []
    for metric in evaluation.metrics:
        found = [statistics.summary(method, metric.key) for method in evaluation.methods]
        if metric.per != "set" and any(s.measured + s.missing for s in found):
            rows.append((metric, [f"{s.measured} of {s.measured + s.missing}" for s in found]))
    return rows


def pair_rows(evaluation: Evaluation, decimals: Mapping[str, int]) -> tuple[list[Metric], list[PairRow]]:
    """Returns the metrics with values per pair, and a row for each pair and method, MOST_ROWS at most."""
    metrics = [m for m in evaluation.metrics if m.per != "set" and any(s.values.get(m.key) for s in evaluation.scores)]
    shown = evaluation.scores[:MOST_ROWS]
    means = {m.key: [pair_means({s.pair: s}, m).get(s.pair) for s in shown] for m in metrics}
    rows = []
    for i, s in enumerate(shown):
        angles = [angle for angle in s.rotation if angle is not None]
        rows.append(PairRow(
            pair=s.pair, method=s.method, frames=len(s.frames), rotation=number(float(np.median(angles)) if angles else None, 1),
            values=tuple(number(means[m.key][i], decimals[m.key]) for m in metrics),
        ))  # fmt: skip
    return metrics, rows


def _extent(c: Comparison, metric: Metric) -> str:
    unit = "frames" if metric.per == "frame" else "values"
    clips = "" if c.clips == c.pairs else f"{c.clips} clips, "
    return f"{c.pairs} pairs, {clips}{c.frames} {unit}"
