"""Tables of an ablation of stage 1: variants of a recipe, each trained from several seeds and measured alike.

Legend: a figure's mean over seeds, and the deviation between seeds where there are two or more.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dagan.evaluate.depth.report import ROWS
from dagan.media.output import atomic_output
from dagan.names import json_text, printable

# What a column shows: (kind of clips, figure of `depth_report.ROWS`) -> heading.
COLUMNS = {
    ("synthetic", "spearman"): "synthetic: rank correlation",
    ("synthetic", "relief"): "relief error",
    ("synthetic", "normals"): "normals, degrees",
    ("synthetic", "rotation"): "turn, degrees",
    ("synthetic", "focal"): "focal length",
    ("real", "landmarker"): "real: rank correlation with the landmarker's z",
}


@dataclass(frozen=True, kw_only=True)
class RunFigures:
    """One trained and measured run. synthetic, real: figure -> value; empty where no such clips were measured. settings: of the recipe,
    beyond the recipe file, with which it was made."""

    variant: str
    seed: int
    steps: int
    minutes: float
    settings: tuple[str, ...]
    synthetic: Mapping[str, float]
    real: Mapping[str, float]


@dataclass(frozen=True)
class Spread:
    """mean over `count` seeds; deviation: sample standard deviation, None for one seed."""

    mean: float
    deviation: float | None
    count: int


def spread(runs: Sequence[RunFigures], kind: str, figure: str) -> Spread | None:
    """Of a figure over the runs that have it; None where none has."""
    values = [table[figure] for run in runs if figure in (table := run.synthetic if kind == "synthetic" else run.real)]
    if not values:
        return None
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def write_tables(folder: Path, runs: Sequence[RunFigures], about: Mapping[str, Any]) -> list[Path]:
    """Writes ablation.json and ablation.md, replacing earlier ones: they hold what is measured so far. Returns the files."""
    files = [folder / "ablation.json", folder / "ablation.md"]
    note = {"about": dict(about), "variants": _variants(runs), "runs": [asdict(run) for run in runs]}
    for path, text in zip(files, (json_text(note), printable(markdown(runs, about))), strict=True):
        with atomic_output(path, overwrite=True) as partial:
            partial.write_text(text, encoding="utf-8")
    return files


def markdown(runs: Sequence[RunFigures], about: Mapping[str, Any]) -> str:
    """One row for each variant, in the order of the runs."""
    shown = [key for key in COLUMNS if spread(runs, *key) is not None]
    lines = ["# Ablation of stage 1", "", *(f"- {name}: {value}" for name, value in about.items()), ""]
    lines += [f"| variant | seeds | steps | {' | '.join(COLUMNS[key] for key in shown)} |", "|" + " --- |" * (len(shown) + 3)]
    for variant, members in _grouped(runs).items():
        cells = [_cell(spread(members, *key), ROWS[key[1]][2]) for key in shown]
        steps = sorted({run.steps for run in members})
        taken = str(steps[0]) if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"
        lines.append(f"| {variant} | {len(members)} | {taken} | {' | '.join(cells)} |")
    lines += ["", "Mean over the seeds, with the standard deviation between seeds where there are several. The columns, in full:", ""]
    lines += [f"- {ROWS[key[1]][0]}." for key in shown]
    return "\n".join(lines) + "\n"


def _grouped(runs: Sequence[RunFigures]) -> dict[str, list[RunFigures]]:
    return {variant: [r for r in runs if r.variant == variant] for variant in dict.fromkeys(r.variant for r in runs)}


def _variants(runs: Sequence[RunFigures]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variant, members in _grouped(runs).items():
        figures = {f"{kind}/{name}": spread(members, kind, name) for kind in ("synthetic", "real") for name in ROWS}
        found[variant] = {name: asdict(value) for name, value in figures.items() if value is not None}
    return found


def _cell(value: Spread | None, digits: int) -> str:
    if value is None:
        return ""
    return f"{value.mean:.{digits}f}" + ("" if value.deviation is None else f" ± {value.deviation:.{digits}f}")
