"""The evaluation job: which pairs a protocol measures, with which tools, and what it writes.

There are two protocols. In reconstruction, clips are rebuilt from one of their own frames. In cross-identity, one person's picture is
driven by another's clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dagan.checks import json_text
from dagan.data.clips import Clip, clips_for, find_stills, in_words
from dagan.errors import InputError
from dagan.evaluate.methods import CopySpec, ModelSpec, ResultsSpec, Spec
from dagan.evaluate.pairs import Pair, draw_pairs, read_pairs, self_pairs, write_pairs
from dagan.evaluate.records import COPY, Evaluation, save
from dagan.evaluate.rulers import RulerFiles, Settings
from dagan.evaluate.run import evaluate
from dagan.evaluate.statistics import summarise
from dagan.losses.gan import SQUEEZENET
from dagan.media.output import atomic_output
from dagan.progress import Progress, Warn, silent, to_stderr

PAIRS = "pairs.csv"
REPORT = ("evaluation.json", "report.md", "report.html")
DEFAULT_SIZE = 256  # Pictures that are measured without a model have this side, in pixels.


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """How an evaluation measures, and what it writes. What has no description here is described in `Settings`."""

    results: Sequence[Path] = ()
    """Folders of results of other programs."""
    hold_out: float = 0.0
    """The share of identities that the training recipe holds out; they alone are measured. 0 measures all clips."""
    layout: str = "auto"
    """How names tell whom clips show; see `dagan.data.clips`."""
    every: int = 5
    size: int | None = None
    """The side of the pictures that are measured; None takes that of the first model."""
    pairs: Path | None = None
    """A list of pairs to measure."""
    portraits: Path | None = None
    """A folder of sources for pairs between identities; None takes sources from the clips."""
    seed: int = 0
    """The seed for drawing such pairs."""
    count: int | None = None
    """How many of such pairs are drawn; None draws one for each clip."""
    absolute: bool = False
    """Whether keypoints are taken as they are, instead of movements relative to the reference frame."""
    adapt_scale: bool = True
    reference: str = "auto"
    lpips: Path | None = None
    """Weights of SqueezeNet; None takes the bundled ones."""
    lpips_vgg: Path | None = None
    """Weights of VGG-16; None leaves its LPIPS out."""
    lpips_alex: Path | None = None
    """Weights of AlexNet; None leaves its LPIPS out."""
    identity: str | None = None
    """A face recognition network; None leaves its metrics out."""
    landmarks68: Path | None = None
    """A network that finds the 68 usual points; None leaves their distance out."""
    action_units: Path | None = None
    """A network that finds action units; None takes them from blendshapes."""
    fid: bool = False
    fid_network: Path | None = None
    """A feature network for the Fréchet distance; None takes SqueezeNet."""
    legacy_range: bool = False
    workers: int = 1
    """The number of processes that measure."""
    cluster: str | None = None
    """The address of a Ray cluster whose workers measure (see `dagan.processes`)."""
    folder: Path | None = None
    """The folder of the report, of pictures, and of what is kept for a next run."""
    summary: Path | None = None
    """A JSON file for the means alone."""
    overwrite: bool = False
    """Whether files that exist are replaced."""


@dataclass(frozen=True)
class Run:
    """A run that was made."""

    evaluation: Evaluation
    """What was measured."""
    report: tuple[Path, ...] = ()
    """The report's files; there are none without a folder."""


def evaluate_reconstruction(
    clips: Path, models: Sequence[ModelSpec], options: EvaluateOptions, progress: Progress = silent, warn: Warn = to_stderr
) -> Run:
    """Measures clips rebuilt from one of their frames. Raises InputError for missing clips or files, and for outputs that exist."""
    found, opening = _find(clips, options)
    if options.pairs is None:
        return _run("reconstruction", self_pairs(found), opening, models, options, progress, warn)
    pairs = _listed(options.pairs, found, found, warn)
    own = [pair for pair in pairs if pair.same]
    if not own:
        raise InputError(f"{options.pairs} pairs different clips alone: measure it with `dagan evaluate cross-identity`")
    if len(own) < len(pairs):
        warn(f"{len(pairs) - len(own)} of {len(pairs)} pairs of {options.pairs} are of different clips: left out")
    return _run("reconstruction", own, opening, models, options, progress, warn)


def evaluate_cross_identity(
    clips: Path, models: Sequence[ModelSpec], options: EvaluateOptions, progress: Progress = silent, warn: Warn = to_stderr
) -> Run:
    """Measures one person's picture driven by another's clip. Raises InputError for missing clips or files, and for outputs that exist."""
    drivers, opening = _find(clips, options)
    sources = find_stills(options.portraits) if options.portraits is not None else drivers
    if options.pairs is None:
        pairs = draw_pairs(drivers, sources, options.seed, options.count)
    else:
        pairs = _listed(options.pairs, [*sources, *(drivers if options.portraits is not None else ())], drivers, warn)
    return _run("cross-identity", pairs, opening, models, options, progress, warn)


def _find(folder: Path, options: EvaluateOptions) -> tuple[list[Clip], str]:
    """Finds the clips to measure, and says how many of how many people they are. Lists may name the only frame of a folder."""
    clips = clips_for(folder, options.hold_out, options.layout, 2 if options.pairs is None else 1)
    people = len({clip.identity for clip in clips})
    return clips, f"{folder}, {in_words(folder, clips, options.layout)}: clips {len(clips)}, identities {people}"


def _listed(file: Path, sources: Sequence[Clip], drivers: Sequence[Clip], warn: Warn) -> list[Pair]:
    pairs, unknown = read_pairs(file, sources, drivers)
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        warn(f"{file} names clips or frames that are not there, and their pairs are left out: {', '.join(unknown[:5])}{more}")
    return pairs


def _run(
    protocol: Literal["reconstruction", "cross-identity"], pairs: list[Pair], opening: str, models: Sequence[ModelSpec],
    options: EvaluateOptions, progress: Progress, warn: Warn,
) -> Run:  # fmt: skip
    _refuse_existing(options)
    files = _tools(options)
    own_size = models[0].size if models else DEFAULT_SIZE
    settings = Settings(
        protocol=protocol, every=options.every, size=own_size if options.size is None else options.size, relative=not options.absolute,
        adapt_scale=options.adapt_scale, reference=_reference(options), legacy_range=options.legacy_range, fid=options.fid,
    )  # fmt: skip
    evaluation = evaluate(
        pairs, _methods(models, options.results), files, settings, folder=options.folder, workers=options.workers,
        cluster=options.cluster, warn=warn, progress=progress, opening=opening,
    )  # fmt: skip
    written: tuple[Path, ...] = ()
    if options.folder is not None:
        write_pairs(options.folder / PAIRS, pairs, overwrite=True)
        written = tuple(_report(options.folder, evaluation, options.overwrite, warn))
    if options.summary is not None:
        with atomic_output(options.summary, options.overwrite) as partial:
            partial.write_text(json_text(summarise(evaluation)), encoding="utf-8")
    return Run(evaluation, written)


def _report(folder: Path, evaluation: Evaluation, overwrite: bool, warn: Warn) -> list[Path]:
    """Writes the report and returns its files. Without the page's template engine, only the values are written."""
    try:
        from dagan.evaluate.pages import write_report
    except ImportError as error:
        warn(f"the report's page and table are left out ({error}): install dagan[evaluate]")
        save(folder / REPORT[0], evaluation, overwrite)
        return [folder / REPORT[0]]
    return write_report(folder, evaluation, overwrite)


def _refuse_existing(options: EvaluateOptions) -> None:
    """Raises InputError for outputs that exist, before the work and not after it."""
    outputs = [options.folder / name for name in REPORT] if options.folder is not None else []
    outputs += [options.summary] if options.summary is not None else []
    for path in outputs:
        if path.exists() and not options.overwrite:
            raise InputError(f"{path} exists already: choose another name, or replace it with --overwrite (what was measured is kept)")
    if options.folder is not None and options.folder.exists() and not options.folder.is_dir():
        raise InputError(f"{options.folder} is a file: give the name of a folder for the report")


def _tools(options: EvaluateOptions) -> RulerFiles:
    named = {"lpips": options.lpips, "lpips_vgg": options.lpips_vgg, "lpips_alex": options.lpips_alex, "fid": options.fid_network}
    named |= {"landmarks68": options.landmarks68, "action_units": options.action_units}
    for name, file in named.items():
        if file is not None and not file.is_file():
            raise InputError(f"{file} does not exist: give the file for --{name.replace('_', '-')}")
    identity = _identity(options.identity) if options.identity else None
    return RulerFiles(
        lpips=options.lpips or SQUEEZENET, lpips_vgg=options.lpips_vgg, lpips_alex=options.lpips_alex, identity=identity,
        landmarks68=options.landmarks68, action_units=options.action_units, fid=options.fid_network,
    )  # fmt: skip


def _identity(text: str) -> Path:
    """Returns a file. Text such as "hub:owner/repository/path.onnx" names one that is fetched, because the user asks for it."""
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
    except (OSError, ValueError) as error:  # The hub's own errors are kinds of these.
        raise InputError(f"{text} could not be fetched ({str(error).splitlines()[0][:120]}): give a file") from None


def _methods(models: Sequence[ModelSpec], results: Sequence[Path]) -> list[Spec]:
    """Returns models, folders of results, and the copy baseline last. Equal names are made unique by numbers."""
    taken = {COPY, "source", "driving"}

    def name_of(text: str) -> str:
        names = (text, *(f"{text}-{i}" for i in range(2, 1000)))
        taken.add(name := next(name for name in names if name not in taken))
        return name

    named = [replace(model, name=name_of(model.name)) for model in models]
    folders = [ResultsSpec(name_of(folder.resolve().name), folder) for folder in results]
    return [*named, *folders, CopySpec()]


def _reference(options: EvaluateOptions) -> Literal["auto", "first"]:
    if options.reference not in ("auto", "first"):
        raise InputError(f"--reference is {options.reference!r}: must be auto or first")
    return "auto" if options.reference == "auto" else "first"
