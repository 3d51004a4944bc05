"""How an ablation measures a trained run: depth for stage 1, rebuilt clips of held-out people for stage 2, by the ordinary evaluations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dagan.data.clips import clips_for, find_clips
from dagan.data.config import DataConfig
from dagan.data.shards import is_shards
from dagan.errors import InputError
from dagan.evaluate.ablation.tables import WHOLE, Figure
from dagan.evaluate.animation.methods import ModelSpec
from dagan.evaluate.animation.protocols import EvaluateOptions, evaluate_reconstruction
from dagan.evaluate.depth.measure import EvaluateDepthOptions, measure_folder
from dagan.evaluate.depth.report import ROWS
from dagan.evaluate.records import Evaluation, Metric, PairScores
from dagan.evaluate.report.statistics import by_method, pair_means, within_rotation
from dagan.progress import Warn, to_stderr

# Each figure of `evaluate.depth.report.ROWS` on one kind of clips is shown under this heading.
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
        """See Measurement."""
        return {"frames measured": f"each {self.every}th"}

    def check(self, recipe: TrainedRecipe) -> None:
        """See Measurement."""
        if self.synthetic is None and self.real is None:
            raise InputError("there is nothing to measure on: name clips with --synthetic, --real or both")
        for folder in (self.synthetic, self.real):
            if folder is not None:
                find_clips(folder)  # Missing clips are an error before the training and not after it.

    def __call__(self, recipe: TrainedRecipe, weights: Path) -> dict[str, Figure]:
        """See Measurement."""
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
        """See Measurement."""
        return {"measured": f"each {self.every}th frame of clips of people held out, rebuilt from their first frame"}

    def check(self, recipe: TrainedRecipe) -> None:
        """See Measurement."""
        clips_for(*self._measured(recipe), recipe.data.layout)

    def __call__(self, recipe: TrainedRecipe, weights: Path) -> dict[str, Figure]:
        """See Measurement."""
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
