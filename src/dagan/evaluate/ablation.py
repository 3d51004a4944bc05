"""The ablation job: trains each variant of a table from each of its seeds, measures the runs, and tabulates the figures.

One run comes after the other. Each is trained by the ordinary training job and measured by the ordinary evaluation. A run that is
measured is kept in OUTPUT/figures, so that the same command goes on where it stopped. A run that was interrupted continues from its
checkpoint. The table gives each figure's mean over seeds, and its deviation between seeds where there are two or more.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from dagan.checks import Checked, Seed, parse, read_mapping
from dagan.data.clips import find_clips
from dagan.errors import InputError
from dagan.evaluate.depth.measure import EvaluateDepthOptions, measure_folder
from dagan.evaluate.depth.report import ROWS
from dagan.media.output import atomic_output
from dagan.names import json_text, printable
from dagan.progress import Warn, to_stderr

# Each column shows a figure of `evaluate.depth.report.ROWS` on one kind of clips, under this heading.
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
    """The settings with which the run was made, besides those of the recipe file."""
    synthetic: Mapping[str, float]
    """The figures on synthetic clips by their names; empty where none were measured."""
    real: Mapping[str, float]
    """The figures on real clips by their names; empty where none were measured."""


@dataclass(frozen=True)
class Spread:
    """The mean of a figure over seeds, and how much it differs between them."""

    mean: float
    """The mean over the seeds."""
    deviation: float | None
    """The sample standard deviation; None for one seed."""
    count: int
    """The number of seeds."""


def spread(runs: Sequence[RunFigures], kind: str, figure: str) -> Spread | None:
    """Returns mean and deviation of a figure over the runs that have it, or None where none has it."""
    values = [table[figure] for run in runs if figure in (table := run.synthetic if kind == "synthetic" else run.real)]
    if not values:
        return None
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def write_tables(folder: Path, runs: Sequence[RunFigures], about: Mapping[str, Any]) -> list[Path]:
    """Writes ablation.json and ablation.md with what is measured so far, and replaces earlier ones. Returns the files."""
    files = [folder / "ablation.json", folder / "ablation.md"]
    note = {"about": dict(about), "variants": _variants(runs), "runs": [asdict(run) for run in runs]}
    for path, text in zip(files, (json_text(note), printable(markdown(runs, about))), strict=True):
        with atomic_output(path, overwrite=True) as partial:
            partial.write_text(text, encoding="utf-8")
    return files


def markdown(runs: Sequence[RunFigures], about: Mapping[str, Any]) -> str:
    """Returns the table with one row for each variant, in the order of the runs."""
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

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [_slug(v.name) for v in self.variants]
        if not names or len(set(names)) < len(names):
            raise InputError(f"variants are {[v.name for v in self.variants]}: give at least one, and names that differ")


@dataclass(frozen=True, kw_only=True)
class AblateOptions:
    """What an ablation measures on, and where it writes."""

    output: Path
    """The folder of runs and tables."""
    synthetic: Path | None = None
    """Clips of `dagan synth` to measure on. Their seeds should differ from those of the training clips."""
    real: Path | None = None
    """Real clips to measure on, by landmarks."""
    hold_out: float = 0.0
    """The share of the real clips' identities that training held out; they alone are measured. 0 measures all clips."""
    every: int = 10
    """Each n-th frame is measured."""
    only: tuple[str, ...] = ()
    """The names of the variants to run; all where it is empty."""
    overwrite: bool = False
    """Whether runs that are there already are made again."""


class PlannedRun(Protocol):
    """A recipe of `dagan train`, of which an ablation reads no more than these three settings."""

    seed: int
    max_minutes: float | None
    accelerator: str


class Outcome(Protocol):
    """The part of a training run that an ablation looks at: its last step, its weights, and whether it came to its end."""

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


def ablate_depth(
    table: Path, overrides: list[str], options: AblateOptions, training: Training, tell: Warn = to_stderr
) -> tuple[list[RunFigures], str, list[Path]]:
    """Runs what is not measured yet and writes ablation.json and ablation.md after each run. Returns figures, table and files.

    `overrides` are settings of all variants and come before a variant's own; a limit of steps (max_steps) belongs here. A run ends at
    max_steps or, if the recipe has it, after max_minutes. Raises InputError for unusable tables, recipes and clips, and
    KeyboardInterrupt when interrupted.
    """
    if options.synthetic is None and options.real is None:
        raise InputError("there is nothing to measure on: name clips with --synthetic, --real or both")
    for folder in (options.synthetic, options.real):
        if folder is not None:
            find_clips(folder)  # Missing clips are an error before the training and not after it.
    read = read_table(table)
    unknown = set(options.only) - {v.name for v in read.variants}
    if unknown:
        raise InputError(f"{table} has no variant {sorted(unknown)[0]!r}: it has {', '.join(v.name for v in read.variants)}")
    planned = list(_planned(read, overrides, options, training))
    if not options.overwrite:
        for variant, seed, _, settings in planned:
            _known(_figures_file(options, variant, seed), settings)
    found: list[RunFigures] = []
    about = _about(read, overrides, options)
    for number, (variant, seed, recipe, settings) in enumerate(planned, 1):
        file = _figures_file(options, variant, seed)
        figures = None if options.overwrite else _known(file, settings)
        if figures is None:
            tell(f"run {number} of {len(planned)}: {variant.name}, seed {seed}")
            figures = _run(variant, recipe, settings, options, training)
            with atomic_output(file, overwrite=True) as partial:
                partial.write_text(json.dumps(asdict(figures), indent=1, allow_nan=False), encoding="utf-8")
        found.append(figures)
        files = write_tables(options.output, found, about)
    return found, markdown(found, about), files


def read_table(path: Path) -> AblationTable:
    """Reads the table in a YAML file and completes its recipe's path. Raises InputError."""
    table = parse(AblationTable, read_mapping(path, "table"), str(path))
    return replace(table, recipe=path.parent / table.recipe)


def _planned(
    read: AblationTable, overrides: list[str], options: AblateOptions, training: Training
) -> Iterator[tuple[Variant, int, PlannedRun, tuple[str, ...]]]:
    """Yields every run with its recipe. All recipes are checked before the first run starts."""
    for variant in read.variants:
        if options.only and variant.name not in options.only:
            continue
        for seed in variant.seeds:
            settings = (*read.settings, *overrides, *variant.settings, f"seed={seed}")
            output = "output=" + json.dumps(str(options.output / "runs" / f"{_slug(variant.name)}-{seed}"))
            yield variant, seed, training.read(read.recipe, [*settings, output]), settings


def _run(variant: Variant, recipe: PlannedRun, settings: tuple[str, ...], options: AblateOptions, training: Training) -> RunFigures:
    began = time.monotonic()
    result = training.run(recipe, options.overwrite)
    minutes = (time.monotonic() - began) / 60
    if not result.finished and (recipe.max_minutes is None or minutes < recipe.max_minutes):
        raise KeyboardInterrupt  # The training loop catches a signal, saves, and returns early.
    tables: dict[str, dict[str, float]] = {"synthetic": {}, "real": {}}
    for kind, folder, hold_out in (("synthetic", options.synthetic, 0.0), ("real", options.real, options.hold_out)):
        if folder is not None:
            how = EvaluateDepthOptions(
                weights=str(result.weights), every=options.every, hold_out=hold_out, pictures=0,
                device="cpu" if recipe.accelerator == "cpu" else "auto",
            )  # fmt: skip
            summary, _ = measure_folder(folder, how)
            tables[kind] = {name: value for name, (value, _) in getattr(summary, kind).items()}
            if not tables[kind]:
                raise InputError(f"{folder} holds no {kind} clips: give --{kind} another folder")
    return RunFigures(
        variant=variant.name, seed=recipe.seed, steps=result.steps, minutes=round(minutes, 2), settings=settings,
        synthetic=tables["synthetic"], real=tables["real"],
    )  # fmt: skip


def _figures_file(options: AblateOptions, variant: Variant, seed: int) -> Path:
    return options.output / "figures" / f"{_slug(variant.name)}-{seed}.json"


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


def _about(read: AblationTable, overrides: list[str], options: AblateOptions) -> dict[str, str]:
    """Returns what a reader needs to repeat the table, without the machine's folders."""
    shared = [s for s in (*read.settings, *overrides) if not s.startswith(("data.train=", "data.cache=", "output="))]
    about = {"recipe": read.recipe.name, "shared settings": ", ".join(shared) or "none", "frames measured": f"each {options.every}th"}
    return about | {f"variant {v.name}": ", ".join(v.settings) or "the recipe as it is" for v in read.variants}


def _slug(name: str) -> str:
    """Returns a name for files of a variant."""
    return "-".join("".join(c if c.isalnum() else " " for c in name).lower().split())
