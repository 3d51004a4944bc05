"""Means of a run, for the terminal and for --json. Pairs weigh alike, whatever their length."""

from __future__ import annotations

import numpy as np

from dagan.evaluate.methods import COPY
from dagan.evaluate.records import Evaluation, Metric
from dagan.evaluate.statistics import pair_mean


def means(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """Metric -> method -> mean over pairs of the pair's mean (pairs weigh alike, whatever their length), or the set's value."""
    table: dict[str, dict[str, float]] = {}
    for metric in evaluation.metrics:
        row = {}
        for method in evaluation.methods:
            found = [pair_mean(s, metric) for s in evaluation.scores if s.method == method]
            known = [value for value in found if value is not None]
            if metric.per == "set":
                known = [v for v in (evaluation.totals.get(method, {}).get(metric.key),) if v is not None]
            if known:
                row[method] = float(np.mean(known))
        table[metric.key] = row
    return table


def ratio_to_copy(evaluation: Evaluation, metric: Metric) -> float | None:
    """First method's mean over the copy baseline's, of the pairs that have both: results of some pairs may be missing."""
    first = evaluation.methods[0]
    if metric.per == "set":
        found = [evaluation.totals.get(method, {}).get(metric.key) for method in (first, COPY)]
        pairs = [found] if None not in found else []
    else:
        values = {(s.method, s.pair): pair_mean(s, metric) for s in evaluation.scores}
        pairs = [[values.get((method, pair)) for method in (first, COPY)] for pair in {s.pair: None for s in evaluation.scores}]
    both = np.array([pair for pair in pairs if None not in pair], dtype=np.float64)
    if not len(both) or not both[:, 1].mean():
        return None
    return float(both[:, 0].mean() / both[:, 1].mean())


def summarise(evaluation: Evaluation) -> dict[str, object]:
    """For --json: metric -> [first method, copy, their ratio], means of all methods, counts, and the first method's mean of each pair."""
    table, first = means(evaluation), evaluation.methods[0]
    titles = {metric.key: metric.title for metric in evaluation.metrics}
    ratios = {
        metric.title: [table[metric.key][first], table[metric.key][COPY], ratio_to_copy(evaluation, metric)]
        for metric in evaluation.metrics if {first, COPY} <= set(table[metric.key])
    }  # fmt: skip
    ours = [s for s in evaluation.scores if s.method == first]
    pairs = []
    for scores in ours:
        found = {metric.title: pair_mean(scores, metric) for metric in evaluation.metrics if metric.per != "set"}
        pairs.append({"pair": scores.pair, "clip": scores.driving, **{title: v for title, v in found.items() if v is not None}})
    return {
        "metrics": ratios, "methods": {titles[key]: row for key, row in table.items()}, "clips": len({s.driving for s in ours if s.frames}),
        "frames": sum(len(s.frames) for s in ours), "missing_faces": sum(sum(s.missing.values()) for s in ours), "scores": pairs,
    }  # fmt: skip
