"""`dagan evaluate reconstruction` and `cross-identity`: measure methods on clips, print the table, write the run's folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from dagan.commands.notices import warn
from dagan.commands.progress import progress_bar
from dagan.console import check_printed
from dagan.data.clips import Clip, clips_for, find_stills
from dagan.device import choose_device, choose_precision
from dagan.errors import InputError
from dagan.evaluate.animation.methods import CopySpec, ModelSpec, ResultsSpec, Spec
from dagan.evaluate.animation.pairs import Pair, draw_pairs, read_pairs, self_pairs, write_pairs
from dagan.evaluate.animation.rulers import RulerFiles, Settings
from dagan.evaluate.animation.run import evaluate
from dagan.evaluate.records import COPY, Evaluation, PairScores, save
from dagan.evaluate.report.statistics import against_copy, means, summarise
from dagan.losses.features import SQUEEZENET
from dagan.media.output import atomic_output
from dagan.names import json_text
from dagan.weights import load

PAIRS = "pairs.csv"
REPORT = ("evaluation.json", "report.md", "report.html")
_MOST_PROBLEMS = 10  # printed; the report has all


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """models, device, precision: as `dagan.load` takes them. keypoints: see `Animator`. results: folders of results of other
    programs. hold_out: share of identities held out, as in the training recipe; 0 takes all clips. pairs: list to measure.
    portraits, seed, count: sources and pairs to draw between identities. lpips ... fid_network: files; what is missing is left out.
    folder: of the report, of pictures and of what is kept for a next run. summary: JSON file of means alone. The others: see
    `Settings`."""

    models: Sequence[str] = ("lite-256",)
    results: Sequence[Path] = ()
    device: str = "auto"
    precision: str = "auto"
    keypoints: str = "auto"
    hold_out: float = 0.0
    every: int = 5
    size: int | None = None
    pairs: Path | None = None
    portraits: Path | None = None
    seed: int = 0
    count: int | None = None
    absolute: bool = False
    adapt_scale: bool = True
    reference: str = "auto"
    lpips: Path | None = None
    lpips_vgg: Path | None = None
    lpips_alex: Path | None = None
    identity: str | None = None
    fid: bool = False
    fid_network: Path | None = None
    legacy_range: bool = False
    workers: int = 1
    folder: Path | None = None
    summary: Path | None = None
    overwrite: bool = False


def evaluate_reconstruction(clips: Path, options: EvaluateOptions) -> Evaluation:
    """Clips rebuilt from one of their frames. Raises InputError for missing clips or files, and outputs that exist."""
    found = clips_for(clips, options.hold_out)
    if options.pairs is None:
        return _run("reconstruction", self_pairs(found), options)
    pairs = _listed(options.pairs, found, found)
    own = [pair for pair in pairs if pair.same]
    if not own:
        raise InputError(f"{options.pairs} pairs different clips alone: measure it with `dagan evaluate cross-identity`")
    if len(own) < len(pairs):
        warn(f"{len(pairs) - len(own)} of {len(pairs)} pairs of {options.pairs} are of different clips: left out")
    return _run("reconstruction", own, options)


def evaluate_cross_identity(clips: Path, options: EvaluateOptions) -> Evaluation:
    """One person's picture driven by another's clip. Raises InputError for missing clips or files, and outputs that exist."""
    drivers = clips_for(clips, options.hold_out)
    sources = find_stills(options.portraits) if options.portraits is not None else drivers
    if options.pairs is None:
        pairs = draw_pairs(drivers, sources, options.seed, options.count)
    else:
        pairs = _listed(options.pairs, [*sources, *(drivers if options.portraits is not None else ())], drivers)
    return _run("cross-identity", pairs, options)


def _listed(file: Path, sources: Sequence[Clip], drivers: Sequence[Clip]) -> list[Pair]:
    pairs, unknown = read_pairs(file, sources, drivers)
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        warn(f"{file} names clips that are not there, and their pairs are left out: {', '.join(unknown[:5])}{more}")
    return pairs


def _run(protocol: str, pairs: list[Pair], options: EvaluateOptions) -> Evaluation:
    _refuse_existing(options)
    files = _tools(options)
    methods = _methods(options)
    settings = Settings(
        protocol="reconstruction" if protocol == "reconstruction" else "cross-identity", every=options.every,
        size=_size_of(options) if options.size is None else options.size, relative=not options.absolute, adapt_scale=options.adapt_scale,
        reference=_reference(options), legacy_range=options.legacy_range, fid=options.fid,
    )  # fmt: skip
    with progress_bar() as show:
        evaluation = evaluate(
            pairs, methods, files, settings, folder=options.folder, workers=options.workers, warn=warn,
            progress=lambda done, total: show("pairs", done, total),
        )  # fmt: skip
    _warn_of_problems(evaluation.scores)
    _print(evaluation)
    if options.folder is not None:
        write_pairs(options.folder / PAIRS, pairs, overwrite=True)
        print(f"report: {', '.join(str(path) for path in _report(options.folder, evaluation, options.overwrite))}")
    if options.summary is not None:
        with atomic_output(options.summary, options.overwrite) as partial:
            partial.write_text(json_text(summarise(evaluation)), encoding="utf-8")
    if options.folder is None and options.summary is None:
        check_printed()
    return evaluation


def _report(folder: Path, evaluation: Evaluation, overwrite: bool) -> list[Path]:
    """The files written: all of them, or the values alone where the page's template engine is not installed."""
    try:
        from dagan.evaluate.report.report import write_report
    except ImportError as error:
        warn(f"the report's page and table are left out ({error}): install dagan[evaluate]")
        save(folder / REPORT[0], evaluation, overwrite)
        return [folder / REPORT[0]]
    return write_report(folder, evaluation, overwrite)


def _refuse_existing(options: EvaluateOptions) -> None:
    """Before the work, not after it."""
    outputs = [options.folder / name for name in REPORT] if options.folder is not None else []
    outputs += [options.summary] if options.summary is not None else []
    for path in outputs:
        if path.exists() and not options.overwrite:
            raise InputError(f"{path} exists already: choose another name, or replace it with --overwrite (what was measured is kept)")
    if options.folder is not None and options.folder.exists() and not options.folder.is_dir():
        raise InputError(f"{options.folder} is a file: give the name of a folder for the report")


def _tools(options: EvaluateOptions) -> RulerFiles:
    named = {"lpips": options.lpips, "lpips_vgg": options.lpips_vgg, "lpips_alex": options.lpips_alex, "fid": options.fid_network}
    for name, file in named.items():
        if file is not None and not file.is_file():
            raise InputError(f"{file} does not exist: give the file for --{name.replace('_', '-')}")
    identity = _identity(options.identity) if options.identity else None
    return RulerFiles(
        lpips=options.lpips or SQUEEZENET, lpips_vgg=options.lpips_vgg, lpips_alex=options.lpips_alex, identity=identity,
        fid=options.fid_network,
    )  # fmt: skip


def _identity(text: str) -> Path:
    """A file, or with "hub:owner/repository/path.onnx" one that is fetched because the user asks for it."""
    if not text.startswith("hub:"):
        path = Path(text)
        if not path.is_file():
            raise InputError(f"{path} does not exist: give an ONNX file, or hub:owner/repository/file.onnx to fetch one")
        return path
    owner, _, rest = text.removeprefix("hub:").partition("/")
    repository, _, file = rest.partition("/")
    if not (owner and repository and file):
        raise InputError(f"--identity {text!r} names no file on the hub: write hub:owner/repository/file.onnx")
    try:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(f"{owner}/{repository}", file))
    except ImportError:
        raise InputError("fetching needs huggingface_hub: install dagan[hub], or give a file") from None
    except (OSError, ValueError) as error:  # the hub's own errors are kinds of these
        raise InputError(f"{text} could not be fetched ({str(error).splitlines()[0][:120]}): give a file") from None


def _methods(options: EvaluateOptions) -> list[Spec]:
    """Models, folders of results, and the copy baseline last; names made unique by counting."""
    taken = {COPY, "source", "driving"}

    def name_of(text: str) -> str:
        names = (text, *(f"{text}-{i}" for i in range(2, 1000)))
        taken.add(name := next(name for name in names if name not in taken))
        return name

    # Said as what they are: a run may go on, from its cache, on a machine where "auto" is something else.
    device = choose_device(options.device)
    precision = str(choose_precision(options.precision, device)).removeprefix("torch.")
    models = [ModelSpec(name_of(_short(model)), model, str(device), precision, options.keypoints) for model in options.models]
    results = [ResultsSpec(name_of(folder.resolve().name), folder) for folder in options.results]
    return [*models, *results, CopySpec()]


def _short(model: str) -> str:
    path = Path(model)
    return path.stem if path.suffix == ".safetensors" else path.name


def _size_of(options: EvaluateOptions) -> int:
    """The first model's; 256 without a model."""
    return load(options.models[0], "cpu").config.image_size if options.models else 256


def _reference(options: EvaluateOptions) -> Literal["auto", "first"]:
    if options.reference not in ("auto", "first"):
        raise InputError(f"--reference is {options.reference!r}: must be auto or first")
    return "auto" if options.reference == "auto" else "first"


def _warn_of_problems(scores: Sequence[PairScores]) -> None:
    problems = [s for s in scores if s.problem]
    for s in problems[:_MOST_PROBLEMS]:
        warn(f"{s.method}, {s.pair}: {s.problem}")
    if len(problems) > _MOST_PROBLEMS:
        warn(f"... and {len(problems) - _MOST_PROBLEMS} more problems; the report lists all")


def _print(evaluation: Evaluation) -> None:
    table, first = means(evaluation), evaluation.methods[0]
    ours = [s for s in evaluation.scores if s.method == first]
    title = f"{len({s.driving for s in ours})} clips, {len(ours)} pairs, {sum(len(s.frames) for s in ours)} frames of {first}"
    shown = Table("metric", "unit", "better", *evaluation.methods, *(["ratio", "against copy"] if first != COPY else []), title=title)
    for metric in evaluation.metrics:
        row = table[metric.key]
        if not row:
            continue
        quotient, standing = against_copy(evaluation, metric)
        ratio = [f"{quotient:.3f}" if quotient is not None else "", standing or ""] if first != COPY else []
        cells = [f"{row[method]:.4f}" if method in row else "-" for method in evaluation.methods]
        shown.add_row(metric.title, metric.unit, metric.better, *cells, *ratio)
    console = Console()
    console.print(shown)
    for method in evaluation.methods:
        lost = {kind: sum(s.missing.get(kind, 0) for s in evaluation.scores if s.method == method) for kind in ("result", "driving")}
        if any(lost.values()):
            where = f"{lost['result']} results and {lost['driving']} driving frames"
            console.print(f"{method}: no face found in {where} (left out of face metrics)")
