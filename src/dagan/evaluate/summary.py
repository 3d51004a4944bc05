"""Means of a run, for the terminal and for --json. Pairs weigh alike, whatever their length."""

from __future__ import annotations

import numpy as np

from dagan.evaluate.methods import COPY
from dagan.evaluate.records import Evaluation, Metric, Standing
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


def against_copy(evaluation: Evaluation, metric: Metric) -> tuple[float | None, Standing | None]:
    """The first method's mean over the copy baseline's, where a ratio says something, and which of them is better.

    Both means are of the pairs that both methods have: results of some pairs may be missing. (None, None) without any.
    """
    first = evaluation.methods[0]
    if metric.per == "set":
        found = [evaluation.totals.get(method, {}).get(metric.key) for method in (first, COPY)]
        pairs = [found] if None not in found else []
    else:
        values = {(s.method, s.pair): pair_mean(s, metric) for s in evaluation.scores}
        pairs = [[values.get((method, pair)) for method in (first, COPY)] for pair in {s.pair: None for s in evaluation.scores}]
    both = np.array([pair for pair in pairs if None not in pair], dtype=np.float64)
    if not len(both):
        return None, None
    ours, copied = (float(mean) for mean in both.mean(0))
    return metric.ratio(ours, copied), metric.standing(ours, copied)


def summarise(evaluation: Evaluation) -> dict[str, object]:
    """For --json, by titles of metrics.

    metrics: [first method, copy, their ratio, or null where a ratio says nothing]; better: "lower" or "higher"; against_copy: whether the
    first method is "better" or "worse" than copy, or the "same"; methods: means of all; then counts, and the first method's mean of
    each pair.
    """
    table, first = means(evaluation), evaluation.methods[0]
    titles = {metric.key: metric.title for metric in evaluation.metrics}
    both = {metric: against_copy(evaluation, metric) for metric in evaluation.metrics if {first, COPY} <= set(table[metric.key])}
    ratios = {metric.title: [table[metric.key][first], table[metric.key][COPY], ratio] for metric, (ratio, _) in both.items()}
    ours = [s for s in evaluation.scores if s.method == first]
    pairs = []
    for scores in ours:
        found = {metric.title: pair_mean(scores, metric) for metric in evaluation.metrics if metric.per != "set"}
        pairs.append({"pair": scores.pair, "clip": scores.driving, **{title: v for title, v in found.items() if v is not None}})
    return {
        "metrics": ratios, "better": {metric.title: metric.better for metric in evaluation.metrics if table[metric.key]},
        "against_copy": {metric.title: standing for metric, (_, standing) in both.items() if first != COPY},
        "methods": {titles[key]: row for key, row in table.items()}, "clips": len({s.driving for s in ours if s.frames}),
        "frames": sum(len(s.frames) for s in ours), "missing_faces": sum(sum(s.missing.values()) for s in ours), "scores": pairs,
    }  # fmt: skip
