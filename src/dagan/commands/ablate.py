"""`dagan ablate depth`: trains the variants of a table from each of their seeds, measures them, tabulates.

One run after the other, each by the ordinary training code and the ordinary evaluation. A run that is measured is kept in
OUTPUT/figures, so that the same command goes on where it stopped; a run that was interrupted continues from its checkpoint.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dagan.checks import Checked, Seed, parse
from dagan.commands.evaluate_depth import EvaluateDepthOptions, measure_folder
from dagan.data.clips import find_clips
from dagan.errors import InputError
from dagan.evaluate.ablation import RunFigures, markdown, write_tables
from dagan.media.output import atomic_output
from dagan.train.depth.stage import DepthStage
from dagan.train.loop.training import AUTO, FRESH, train
from dagan.train.recipe import DepthRecipe, read_mapping, read_recipe


@dataclass(frozen=True, kw_only=True)
class Variant(Checked):
    """settings: overrides of the recipe, such as "loss.levels=1". seeds: of its runs."""

    name: str
    settings: tuple[str, ...] = ()
    seeds: tuple[Seed, ...] = (0,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"variant {self.name!r}: seeds is {list(self.seeds)}: give at least one, each once")


@dataclass(frozen=True, kw_only=True)
class AblationTable(Checked):
    """recipe: file, from the table's own folder. settings: overrides of the recipe that all variants share; a variant's come after."""

    recipe: Path
    variants: tuple[Variant, ...]
    settings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [_slug(v.name) for v in self.variants]
        if not names or len(set(names)) < len(names):
            raise InputError(f"variants are {[v.name for v in self.variants]}: give at least one, and names that differ")


@dataclass(frozen=True, kw_only=True)
class AblateOptions:
    """output: folder of runs and tables. synthetic: clips of `dagan synth` to measure on, of other seeds than the training clips.
    real: real clips to measure on, by landmarks; hold_out: share of their identities that training held out (0: all clips).
    every: as in `dagan evaluate depth`. only: names of the variants to run; all where empty."""

    output: Path
    synthetic: Path | None = None
    real: Path | None = None
    hold_out: float = 0.0
    every: int = 10
    only: tuple[str, ...] = ()
    overwrite: bool = False


def ablate_depth(table: Path, overrides: list[str], options: AblateOptions) -> list[RunFigures]:
    """Runs what is not measured yet and writes ablation.json and ablation.md after each run.

    overrides: of all variants, before their own settings; a step budget (max_steps) belongs here. A run ends at max_steps or, if the
    recipe has it, after max_minutes. Raises InputError for unusable tables, recipes and clips; KeyboardInterrupt when interrupted.
    """
    if options.synthetic is None and options.real is None:
        raise InputError("there is nothing to measure on: name clips with --synthetic, --real or both")
    for folder in (options.synthetic, options.real):
        if folder is not None:
            find_clips(folder)  # before the training, not after it
    read = read_table(table)
    unknown = set(options.only) - {v.name for v in read.variants}
    if unknown:
        raise InputError(f"{table} has no variant {sorted(unknown)[0]!r}: it has {', '.join(v.name for v in read.variants)}")
    planned = list(_planned(read, overrides, options))
    if not options.overwrite:
        for variant, seed, _, settings in planned:
            _known(_figures_file(options, variant, seed), settings)
    found: list[RunFigures] = []
    about = _about(read, overrides, options)
    for number, (variant, seed, recipe, settings) in enumerate(planned, 1):
        file = _figures_file(options, variant, seed)
        figures = None if options.overwrite else _known(file, settings)
        if figures is None:
            print(f"run {number} of {len(planned)}: {variant.name}, seed {seed}", flush=True)
            figures = _run(variant, recipe, settings, options)
            with atomic_output(file, overwrite=True) as partial:
                partial.write_text(json.dumps(asdict(figures), indent=1, allow_nan=False), encoding="utf-8")
        found.append(figures)
        files = write_tables(options.output, found, about)
    print(markdown(found, about))
    print(f"{files[0]}, {files[1].name}")
    return found


def read_table(path: Path) -> AblationTable:
    """The table in a YAML file, its recipe's path made whole. Raises InputError."""
    table = parse(AblationTable, read_mapping(path, "table"), str(path))
    return replace(table, recipe=path.parent / table.recipe)


def _planned(
    read: AblationTable, overrides: list[str], options: AblateOptions
) -> Iterator[tuple[Variant, int, DepthRecipe, tuple[str, ...]]]:
    """Every run, its recipe checked before the first one starts."""
    for variant in read.variants:
        if options.only and variant.name not in options.only:
            continue
        for seed in variant.seeds:
            settings = (*read.settings, *overrides, *variant.settings, f"seed={seed}")
            output = "output=" + json.dumps(str(options.output / "runs" / f"{_slug(variant.name)}-{seed}"))
            yield variant, seed, read_recipe(DepthRecipe, read.recipe, [*settings, output]), settings


def _run(variant: Variant, recipe: DepthRecipe, settings: tuple[str, ...], options: AblateOptions) -> RunFigures:
    began = time.monotonic()
    result = train(recipe, DepthStage, FRESH if options.overwrite else AUTO)
    minutes = (time.monotonic() - began) / 60
    if not result.finished and (recipe.max_minutes is None or minutes < recipe.max_minutes):
        raise KeyboardInterrupt  # the loop keeps a signal to itself, saves, and returns early
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
    """The figures of a run that is done; None where it is not. Raises InputError for a run with other settings."""
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
    """What a reader needs to repeat the table, without folders of the machine."""
    shared = [s for s in (*read.settings, *overrides) if not s.startswith(("data.train=", "data.cache=", "output="))]
    about = {"recipe": read.recipe.name, "shared settings": ", ".join(shared) or "none", "frames measured": f"each {options.every}th"}
    return about | {f"variant {v.name}": ", ".join(v.settings) or "the recipe as it is" for v in read.variants}


def _slug(name: str) -> str:
    """A file name of a variant's."""
    return "-".join("".join(c if c.isalnum() else " " for c in name).lower().split())
