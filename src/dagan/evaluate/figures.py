"""The figures of trained runs: how an ablation measures them, and the tables that compare variants by them.

Runs are measured by the ordinary evaluations: depth for stage 1, rebuilt clips of held-out people for stage 2. A run's figures are one
plain JSON file that says what each figure is, so that files from several machines can be put into one folder and tabulated there. Tables
give each figure's mean over seeds, and its deviation between seeds where there are two or more.

Where figures are known for single clips, variants are compared with one of them (the baseline) on the clips and seeds that both have. The
difference of a clip is averaged over seeds, and a sign-flip test over clips tells whether its mean could be chance. That test takes the
trained networks as they are, so a variant is called better or worse only where, besides, there are two seeds or more and each shows the
same sign.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from dagan.checks import json_text, printable
from dagan.data.clips import clips_for, find_clips
from dagan.data.config import DataConfig
from dagan.data.shards import is_shards
from dagan.errors import InputError
from dagan.evaluate.depth import ROWS, EvaluateDepthOptions, measure_folder
from dagan.evaluate.methods import ModelSpec
from dagan.evaluate.protocols import EvaluateOptions, evaluate_reconstruction
from dagan.evaluate.records import Evaluation, Metric, PairScores, Standing
from dagan.evaluate.statistics import by_method, holm, pair_means, sign_flip, within_rotation
from dagan.media.output import atomic_output
from dagan.progress import Warn, to_stderr

SIGNIFICANT = 0.05  # A difference counts from this adjusted p-value down.
WHOLE = "All frames"  # The heading of the table of figures that belong to no part.
# Each figure of `evaluate.depth.ROWS` on one kind of clips is shown under this heading.
_DEPTH_TITLES = {
    ("synthetic", "spearman"): "synthetic: rank correlation",
    ("synthetic", "relief"): "synthetic: relief error",
    ("synthetic", "normals"): "synthetic: normals, degrees",
    ("synthetic", "rotation"): "synthetic: turn, degrees",
    ("synthetic", "focal"): "synthetic: focal length, relative error",
    ("real", "landmarker"): "real: rank correlation with the landmarker's z",
}
# Frames are also measured apart by how far the head is turned from the source, in degrees.
STRATA = ((0.0, 10.0), (10.0, 20.0), (20.0, 180.0))


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of one run."""

    title: str
    """The heading, with the unit."""
    value: float
    """The figure itself."""
    digits: int
    """How many digits after the point are shown."""
    better: Literal["lower", "higher"] | None = None
    """Which values are better; None where the title says so."""
    part: str = WHOLE
    """The heading of the table in which the figure is shown."""
    clips: Mapping[str, float] = field(default_factory=dict)
    """The values of single clips by their names; empty where they are not known, and variants are then not compared by this figure."""


@dataclass(frozen=True, kw_only=True)
class RunFigures:
    """The figures of one trained and measured run."""

    variant: str
    """The variant's name."""
    seed: int
    """The seed of the run."""
    steps: int
    """The number of steps that were trained."""
    minutes: float
    """How long the training took."""
    settings: tuple[str, ...]
    """The settings with which the run was made, besides those of the recipe file and those that only say where things are."""
    figures: Mapping[str, Figure]
    """The figures by their short names."""


@dataclass(frozen=True)
class Spread:
    """The mean of a figure over seeds, and how much it differs between them."""

    mean: float
    """The mean over the seeds."""
    deviation: float | None
    """The sample standard deviation; None for one seed."""
    count: int
    """The number of seeds."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A variant against the baseline in one figure, on the clips and seeds that both have."""

    variant: str
    figure: str
    difference: float
    """The mean over clips and seeds of the variant's value less the baseline's."""
    by_seed: tuple[float, ...]
    """That mean in each seed."""
    clips: int
    """The number of clips."""
    p: float | None
    """The p-value of the sign-flip test over clips; None where clips are too few."""
    adjusted: float | None = None
    """The p-value adjusted by Holm's method for the number of comparisons in one table."""
    standing: Standing = "same"
    """Whether the variant is better or worse; "same" where that is not shown, in all seeds and with significance."""


def spread(runs: Sequence[RunFigures], figure: str) -> Spread | None:
    """Returns mean and deviation of a figure over the runs that have it, or None where none has it."""
    values = [run.figures[figure].value for run in runs if figure in run.figures]
    if not values:
        return None
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def contrasts(runs: Sequence[RunFigures], baseline: str) -> list[Contrast]:
    """Compares every variant with the baseline in every figure whose clips are known. p-values are adjusted within each table."""
    variants = grouped(runs)
    found: list[Contrast] = []
    for part in parts(runs).values():
        several = [
            contrast
            for variant in variants
            if variant != baseline and baseline in variants
            for key, figure in part.items()
            if (contrast := _contrast(variants[variant], variants[baseline], key, figure)) is not None
        ]
        for contrast, adjusted in zip(several, holm([c.p for c in several]), strict=True):
            same_sign = len(contrast.by_seed) > 1 and len({np.sign(d) for d in contrast.by_seed}) == 1
            shown = adjusted is not None and adjusted < SIGNIFICANT and same_sign
            standing = _standing(contrast.difference, part[contrast.figure]) if shown else "same"
            found.append(replace(contrast, adjusted=adjusted, standing=standing))
    return found


def _contrast(runs: Sequence[RunFigures], others: Sequence[RunFigures], key: str, figure: Figure) -> Contrast | None:
    """Compares two variants in one figure. Returns None without a clip and a seed that both have, or without a better direction."""
    pairs = [(run, other) for run in runs for other in others if run.seed == other.seed and key in run.figures and key in other.figures]
    common = set.intersection(*(set(one.figures[key].clips) for pair in pairs for one in pair)) if pairs else set()
    if not common or figure.better is None:
        return None
    clips = sorted(common)
    table = np.array([[a.figures[key].clips[c] - b.figures[key].clips[c] for c in clips] for a, b in pairs])  # seeds x clips
    by_seed = tuple(float(d) for d in table.mean(1))
    return Contrast(
        variant=runs[0].variant, figure=key, difference=float(table.mean()), by_seed=by_seed, clips=len(clips), p=sign_flip(table.mean(0)),
    )  # fmt: skip


def _standing(difference: float, figure: Figure) -> Standing:
    if difference == 0:
        return "same"
    return "better" if (difference > 0) == (figure.better == "higher") else "worse"


def grouped(runs: Sequence[RunFigures]) -> dict[str, list[RunFigures]]:
    """Returns the runs of each variant, in the order of the runs."""
    return {variant: [r for r in runs if r.variant == variant] for variant in dict.fromkeys(r.variant for r in runs)}


def parts(runs: Sequence[RunFigures]) -> dict[str, dict[str, Figure]]:
    """Returns the figures of each table by its heading, as the first run that has them describes them."""
    found: dict[str, dict[str, Figure]] = {}
    for run in runs:
        for key, figure in run.figures.items():
            found.setdefault(figure.part, {}).setdefault(key, figure)
    return found


def write_tables(folder: Path, runs: Sequence[RunFigures], baseline: str, about: Mapping[str, Any]) -> list[Path]:
    """Writes ablation.json and ablation.md with what is measured so far, and replaces earlier ones. Returns the files."""
    files = [folder / "ablation.json", folder / "ablation.md"]
    compared = contrasts(runs, baseline)
    note = {
        "about": dict(about), "baseline": baseline, "variants": _variants(runs), "contrasts": [asdict(c) for c in compared],
        "runs": [asdict(run) for run in runs],
    }  # fmt: skip
    for path, text in zip(files, (json_text(note), printable(markdown(runs, compared, baseline, about))), strict=True):
        with atomic_output(path, overwrite=True) as partial:
            partial.write_text(text, encoding="utf-8")
    return files


def markdown(runs: Sequence[RunFigures], compared: Sequence[Contrast], baseline: str, about: Mapping[str, Any]) -> str:
    """Returns a page with a table for each part: a row for each figure, a column for each variant."""
    variants, against = grouped(runs), {(c.variant, c.figure): c for c in compared}
    lines = ["# Ablation", "", *(f"- {name}: {value}" for name, value in about.items()), ""]
    seeds = [f"{name}: {len(members)} of {_steps(members)} steps" for name, members in variants.items()]
    lines += [f"Runs: {'; '.join(seeds)}.", ""]
    for part, figures in parts(runs).items():
        lines += [f"## {part}", "", f"| figure | {' | '.join(variants)} |", "|" + " --- |" * (len(variants) + 1)]
        for key, figure in figures.items():
            cells = [_cell(spread(members, key), figure.digits, against.get((name, key))) for name, members in variants.items()]
            direction = f" ({figure.better} is better)" if figure.better else ""
            lines.append(f"| {figure.title}{direction} | {' | '.join(cells)} |")
        lines.append("")
    lines.append("Each cell is the mean over the seeds, with the standard deviation between seeds where there are several.")
    if compared:
        clips = max(c.clips for c in compared)
        lines.append(
            f"Variants are compared with {baseline!r} on the same clips (up to {clips}) and seeds. p is that of a two-sided sign-flip test "
            "over clips of the difference averaged over seeds, adjusted by Holm's method within each table. A variant is called better or "
            f"worse where p is below {SIGNIFICANT} and the difference has the same sign in every one of two seeds or more."
        )
    return "\n".join(lines) + "\n"


def _steps(members: Sequence[RunFigures]) -> str:
    steps = sorted({run.steps for run in members})
    return str(steps[0]) if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"


def _variants(runs: Sequence[RunFigures]) -> dict[str, Any]:
    keys = [key for part in parts(runs).values() for key in part]
    found: dict[str, Any] = {}
    for variant, members in grouped(runs).items():
        figures = {key: spread(members, key) for key in keys}
        found[variant] = {key: asdict(value) for key, value in figures.items() if value is not None}
    return found


def _cell(value: Spread | None, digits: int, contrast: Contrast | None) -> str:
    if value is None:
        return ""
    text = f"{value.mean:.{digits}f}" + ("" if value.deviation is None else f" ± {value.deviation:.{digits}f}")
    if contrast is None or contrast.adjusted is None:
        return text
    verdict = "" if contrast.standing == "same" else f"{contrast.standing}, "
    return f"{text} ({verdict}p {contrast.adjusted:.2g})"


class TrainedRecipe(Protocol):
    """The part of a training recipe that is looked at here."""

    accelerator: str
    data: DataConfig


class Measurement(Protocol):
    """Measures trained runs of one stage."""

    @property
    def facts(self) -> Mapping[str, str]:
        """What a reader needs to repeat the measurement."""

    def check(self, recipe: TrainedRecipe) -> None:
        """Raises InputError for what can be refused before the training of this recipe."""

    def __call__(self, recipe: TrainedRecipe, weights: Path) -> dict[str, Figure]:
        """Measures the weights that the recipe's run wrote."""


@dataclass(frozen=True, kw_only=True)
class DepthMeasurement:
    """Measures stage 1 as `dagan evaluate depth` does."""

    synthetic: Path | None = None
    """Clips of `dagan synth` to measure on. Their seeds should differ from those of the training clips."""
    real: Path | None = None
    """Real clips to measure on, by landmarks."""
    hold_out: float = 0.0
    """The share of the real clips' identities that training held out; they alone are measured. 0 measures all clips."""
    every: int = 10
    """Each n-th frame is measured."""

    @property
    def facts(self) -> Mapping[str, str]:
        """Implements the method of `Measurement`, which is documented there."""
        return {"frames measured": f"each {self.every}th"}

    def check(self, recipe: TrainedRecipe) -> None:
        """Implements the method of `Measurement`, which is documented there."""
        if self.synthetic is None and self.real is None:
            raise InputError("there is nothing to measure on: name clips with --synthetic, --real or both")
        for folder in (self.synthetic, self.real):
            if folder is not None:
                find_clips(folder)  # Missing clips are an error before the training and not after it.

    def __call__(self, recipe: TrainedRecipe, weights: Path) -> dict[str, Figure]:
        """Implements the method of `Measurement`, which is documented there."""
        figures: dict[str, Figure] = {}
        for kind, folder, hold_out in (("synthetic", self.synthetic, 0.0), ("real", self.real, self.hold_out)):
            if folder is None:
                continue
            how = EvaluateDepthOptions(weights=str(weights), every=self.every, hold_out=hold_out, pictures=0, device=_device(recipe))
            summary, _ = measure_folder(folder, how)
            found = {name: value for name, (value, _) in getattr(summary, kind).items()}
            if not found:
                raise InputError(f"{folder} holds no {kind} clips: give --{kind} another folder")
            for (of, name), title in _DEPTH_TITLES.items():
                if of == kind and name in found:
                    figures[f"{kind}/{name}"] = Figure(title=title, value=found[name], digits=ROWS[name][2])
        return figures


@dataclass(frozen=True, kw_only=True)
class GanMeasurement:
    """Measures stage 2 as `dagan evaluate reconstruction` does, over all frames and apart by how far heads are turned."""

    describe: Callable[[Path, str], ModelSpec]
    """Describes the model in a file on a device. An interface hands it over, because only interfaces open engines."""
    clips: Path | None = None
    """Clips to measure on; None takes the recipe's training clips."""
    hold_out: float | None = None
    """The share of their identities that training held out; they alone are measured. None is the recipe's, and 0 measures all clips."""
    every: int = 5
    """Each n-th driving frame is measured."""
    workers: int = 1
    """The number of processes that measure."""
    warn: Warn = field(default=to_stderr)

    @property
    def facts(self) -> Mapping[str, str]:
        """Implements the method of `Measurement`, which is documented there."""
        return {"measured": f"each {self.every}th frame of clips of people held out, rebuilt from their first frame"}

    def check(self, recipe: TrainedRecipe) -> None:
        """Implements the method of `Measurement`, which is documented there."""
        clips_for(*self._measured(recipe), recipe.data.layout)

    def __call__(self, recipe: TrainedRecipe, weights: Path) -> dict[str, Figure]:
        """Implements the method of `Measurement`, which is documented there."""
        clips, hold_out = self._measured(recipe)
        options = EvaluateOptions(
            hold_out=hold_out, every=self.every, workers=self.workers, layout=recipe.data.layout, folder=weights.parent / "measured",
            overwrite=True,
        )  # fmt: skip
        evaluation = evaluate_reconstruction(clips, [self.describe(weights, _device(recipe))], options, warn=self.warn).evaluation
        return figures_of(evaluation)

    def _measured(self, recipe: TrainedRecipe) -> tuple[Path, float]:
        clips = self.clips or recipe.data.train
        if not isinstance(clips, Path) or is_shards(clips):
            raise InputError(f"{clips} holds shards, and measuring needs the clips themselves: name their folder with --clips")
        return clips, recipe.data.hold_out if self.hold_out is None else self.hold_out


def figures_of(evaluation: Evaluation) -> dict[str, Figure]:
    """Returns the figures of the first method of an evaluation, over all frames and within each of STRATA."""
    method = evaluation.methods[0]
    scores = by_method(evaluation)[method]
    figures: dict[str, Figure] = {}
    for metric in evaluation.metrics:
        total = evaluation.totals.get(method, {}).get(metric.key)
        if metric.per == "set" and total is not None:
            figures[metric.key] = _figure(metric, WHOLE, total, {})
        elif metric.per != "set":
            figures |= _of_clips(metric, metric.key, WHOLE, scores)
    for low, high in STRATA:
        turned = {pair: within_rotation(s, low, high) for pair, s in scores.items()}
        part = f"Heads turned by {low:.0f} to {high:.0f} degrees"
        for metric in evaluation.metrics:
            if metric.per == "frame":
                figures |= _of_clips(metric, f"{metric.key}/{low:.0f}-{high:.0f}", part, turned)
    return figures


def _of_clips(metric: Metric, key: str, part: str, scores: Mapping[str, PairScores]) -> dict[str, Figure]:
    """Returns the figure of a metric over the clips that have a value, or nothing where none has."""
    found = {scores[pair].driving: mean for pair, mean in pair_means(scores, metric).items()}
    return {key: _figure(metric, part, sum(found.values()) / len(found), found)} if found else {}


def _figure(metric: Metric, part: str, value: float, clips: Mapping[str, float]) -> Figure:
    title = f"{metric.title}, {metric.unit}" if metric.unit else metric.title
    return Figure(title=title, value=value, digits=2 if metric.unit else 4, better=metric.better, part=part, clips=clips)


def _device(recipe: TrainedRecipe) -> str:
    return "cpu" if recipe.accelerator == "cpu" else "auto"
