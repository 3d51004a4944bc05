"""The ablation job: trains each variant of a table from each of its seeds, measures the runs, and tabulates the figures.

One run comes after the other. Each is trained by the ordinary training job and measured by the ordinary evaluation. The figures of a run
that is measured are a JSON file in OUTPUT/figures, so that the same command goes on where it stopped, and so that files from several
machines can be tabulated together. A run that was interrupted continues from its checkpoint.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from dagan.checks import Checked, Seed, parse, read_mapping
from dagan.errors import InputError
from dagan.evaluate.figures import Measurement, RunFigures, TrainedRecipe, contrasts, markdown, write_tables
from dagan.media.output import atomic_output
from dagan.progress import Warn, to_stderr

FIGURES = "figures"  # The folder of the runs' figures, below the output folder.
# Settings that begin so say where things are or how fast they go, and not what is trained. They differ between machines.
_LOCAL = (
    "accelerator=", "checkpoint_minutes=", "data.cache=", "data.portraits=", "data.storage=", "data.train=", "data.workers=",
    "depth_weights=", "devices=", "encoder_weights=", "init_from=", "loss.perceptual_file=", "output=", "threads=",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Variant(Checked):
    """One variant of a recipe."""

    name: str
    """The variant's name."""
    settings: tuple[str, ...] = ()
    """Settings that replace the recipe's, such as "loss.levels=1"."""
    seeds: tuple[Seed, ...] = (0,)
    """The seeds of the variant's runs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"variant {self.name!r}: seeds is {list(self.seeds)}: give at least one, each once")


@dataclass(frozen=True, kw_only=True)
class AblationTable(Checked):
    """A table of variants."""

    recipe: Path
    """The recipe file, named from the table's own folder."""
    variants: tuple[Variant, ...]
    """The variants to train."""
    settings: tuple[str, ...] = ()
    """Settings that all variants share and that replace the recipe's. Those of a variant come after them."""
    baseline: str | None = None
    """The name of the variant with which the others are compared; None is the first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [v.name for v in self.variants]
        slugs = {_slug(name) for name in names}
        if not names or len(slugs) < len(names):
            raise InputError(f"variants are {names}: give at least one, and names that differ")
        if self.baseline is not None and self.baseline not in names:
            raise InputError(f"baseline is {self.baseline!r}: must be one of {', '.join(names)}")


@dataclass(frozen=True, kw_only=True)
class AblateOptions:
    """Which runs an ablation makes, and where it writes."""

    output: Path
    """The folder of runs and tables."""
    only: tuple[str, ...] = ()
    """The names of the variants to run; all where it is empty."""
    seeds: tuple[int, ...] = ()
    """The seeds to run; all where it is empty."""
    tabulate: bool = False
    """Whether only those figures are tabulated that are there, and nothing is trained."""
    overwrite: bool = False
    """Whether runs that are there already are made again."""


class PlannedRun(TrainedRecipe, Protocol):
    """A recipe of `dagan train`, of which an ablation reads no more than these settings."""

    seed: int
    max_minutes: float | None


class Outcome(Protocol):
    """What a training run says of itself to an ablation: its last step, its weights, and whether it came to its end."""

    @property
    def steps(self) -> int: ...

    @property
    def weights(self) -> Path: ...

    @property
    def finished(self) -> bool: ...


@dataclass(frozen=True)
class Training:
    """The training job. An interface hands it over, because jobs do not import each other."""

    read: Callable[[Path, list[str]], Any]
    """Reads the recipe in a file, with these settings in place of its own. Raises InputError."""
    run: Callable[[Any, bool], Outcome]
    """Trains a recipe. It begins again where the second argument says so; otherwise a run that is there goes on."""


@dataclass(frozen=True)
class Ablation:
    """What came of an ablation."""

    runs: list[RunFigures]
    """The figures of all runs."""
    page: str
    """The tables, as a page in Markdown."""
    files: list[Path]
    """The files that were written."""


def ablate(
    table: Path, overrides: list[str], options: AblateOptions, training: Training, measure: Measurement, tell: Warn = to_stderr
) -> Ablation:
    """Runs what is not measured yet and writes ablation.json and ablation.md after each run.

    `overrides` are settings of all variants and come before a variant's own; a limit of steps (max_steps) belongs here. A run ends at
    max_steps or, if the recipe has it, after max_minutes. Raises InputError for unusable tables, recipes and clips, and
    KeyboardInterrupt when interrupted.
    """
    read = read_table(table)
    planned = list(_planned(table, read, overrides, options))
    found: list[RunFigures] = []
    about = _about(read, overrides) | dict(measure.facts)
    baseline = read.baseline or read.variants[0].name
    files: list[Path] = []
    # All recipes and all figures are checked before the first run starts.
    recipes = [] if options.tabulate else [training.read(read.recipe, [*p.settings, *p.place]) for p in planned]
    for recipe in recipes:
        measure.check(recipe)
    known = [None if options.overwrite and not options.tabulate else _known(p.file, _shared(p.settings)) for p in planned]
    for number, (plan, figures) in enumerate(zip(planned, known, strict=True), 1):
        if figures is None and options.tabulate:
            continue
        if figures is None:
            tell(f"run {number} of {len(planned)}: {plan.variant.name}, seed {plan.seed}")
            figures = _run(plan, recipes[number - 1], options, training, measure)
            with atomic_output(plan.file, overwrite=True) as partial:
                partial.write_text(json.dumps(asdict(figures), indent=1, allow_nan=False), encoding="utf-8")
        found.append(figures)
        if not options.tabulate:
            files = write_tables(options.output, found, baseline, about)
    if not found:
        raise InputError(f"{options.output / FIGURES} holds no figures of this table: run it first, or put files of other machines there")
    files = files or write_tables(options.output, found, baseline, about)
    return Ablation(found, markdown(found, contrasts(found, baseline), baseline, about), files)


def read_table(path: Path) -> AblationTable:
    """Reads the table in a YAML file and completes its recipe's path. Raises InputError."""
    table = parse(AblationTable, read_mapping(path, "table"), str(path))
    return replace(table, recipe=path.parent / table.recipe)


@dataclass(frozen=True)
class _Plan:
    """One run to make."""

    variant: Variant
    seed: int
    settings: tuple[str, ...]
    """What replaces the recipe's settings."""
    place: tuple[str, ...]
    """The setting that says where the run writes."""
    file: Path
    """The file of its figures."""


def _planned(table: Path, read: AblationTable, overrides: list[str], options: AblateOptions) -> Iterator[_Plan]:
    """Yields every run that is asked for. Raises InputError for variants and seeds that the table does not have."""
    names, seeds = [v.name for v in read.variants], sorted({seed for v in read.variants for seed in v.seeds})
    for what, wanted, there in (("variant", options.only, names), ("seed", options.seeds, seeds)):
        unknown = [one for one in wanted if one not in there]
        if unknown:
            raise InputError(f"{table} has no {what} {unknown[0]!r}: it has {', '.join(map(str, there))}")
    for variant in read.variants:
        for seed in variant.seeds:
            if (options.only and variant.name not in options.only) or (options.seeds and seed not in options.seeds):
                continue
            name = f"{_slug(variant.name)}-{seed}"
            place = "output=" + json.dumps(str(options.output / "runs" / name))
            settings = (*read.settings, *overrides, *variant.settings, f"seed={seed}")
            yield _Plan(variant, seed, settings, (place,), options.output / FIGURES / f"{name}.json")


def _run(plan: _Plan, recipe: PlannedRun, options: AblateOptions, training: Training, measure: Measurement) -> RunFigures:
    began = time.monotonic()
    result = training.run(recipe, options.overwrite)
    minutes = (time.monotonic() - began) / 60
    if not result.finished and (recipe.max_minutes is None or minutes < recipe.max_minutes):
        raise KeyboardInterrupt  # The training loop catches a signal, saves, and returns early.
    return RunFigures(
        variant=plan.variant.name, seed=plan.seed, steps=result.steps, minutes=round(minutes, 2), settings=_shared(plan.settings),
        figures=measure(recipe, result.weights),
    )  # fmt: skip


def _shared(settings: Iterable[str]) -> tuple[str, ...]:
    """Returns the settings that are the same on every machine."""
    return tuple(s for s in settings if not s.startswith(_LOCAL))


def _known(file: Path, settings: tuple[str, ...]) -> RunFigures | None:
    """Returns the figures of a run that is done, or None where it is not. Raises InputError for a run with other settings."""
    if not file.is_file():
        return None
    try:
        figures = parse(RunFigures, json.loads(file.read_text(encoding="utf-8")), str(file))
    except (ValueError, RecursionError):
        raise InputError(f"{file} cannot be read: remove it, or measure again with --overwrite") from None
    if figures.settings != settings:
        raise InputError(f"{file} is of a run with other settings: choose another --output, or run again with --overwrite")
    return figures


def _about(read: AblationTable, overrides: list[str]) -> dict[str, str]:
    """Returns what a reader needs to repeat the table, without the machine's folders."""
    about = {"recipe": read.recipe.name, "shared settings": ", ".join(_shared([*read.settings, *overrides])) or "none"}
    return about | {f"variant {v.name}": ", ".join(_shared(v.settings)) or "the recipe as it is" for v in read.variants}


def _slug(name: str) -> str:
    """Returns a name for files of a variant."""
    return "-".join("".join(c if c.isalnum() else " " for c in name).lower().split())
