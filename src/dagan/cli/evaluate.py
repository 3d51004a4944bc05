"""`dagan evaluate` measures models, other programs' results or a depth network on clips. It prints tables and writes reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dagan.cli.options import (
    ClusterOption,
    EveryOption,
    HoldOutOption,
    KeypointsOption,
    LayoutOption,
    OverwriteOption,
    RunDeviceOption,
    RuntimeOption,
    WorkersOption,
    open_chosen,
)
from dagan.errors import require_extra

if TYPE_CHECKING:
    from dagan.evaluate.depth import DepthSummary
    from dagan.evaluate.methods import ModelSpec
    from dagan.evaluate.protocols import EvaluateOptions, Run
    from dagan.evaluate.records import Evaluation, PairScores

app = typer.Typer(no_args_is_help=True, help="Measure models, and results of other programs.")
_MOST_PROBLEMS = 10  # So many problems are printed. The report has all.

ClipsArgument = Annotated[Path, typer.Argument(help="Measure on this folder of clips.", show_default=False)]
ModelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model", help="Measure the model of this name, file or hub id; the option may be repeated. Default: lite-256.", show_default=False
    ),
]
NoModelOption = Annotated[bool, typer.Option("--no-model", help="Measure --results and the baseline alone.")]
ResultsOption = Annotated[
    list[Path] | None,
    typer.Option(
        help="Measure this folder of any program's results, named like pairs or driving clips; the option may be repeated.",
        show_default=False,
    ),
]
PairsOption = Annotated[
    Path | None,
    typer.Option(
        help="Measure the pairs of this list, a CSV file with the columns source,driving,frame. Names are clips, or frames such as "
        "CLIP.mp4/0000013.png; folders in front that are not there are stripped as far as needed.",
        show_default=False,
    ),
]
PrecisionOption = Annotated[str, typer.Option("--precision", help="Numbers have this precision: auto, float32, bfloat16 or float16.")]
SizeOption = Annotated[
    int | None,
    typer.Option(help="Pictures are measured at this side. Default: the first model's, or 256 without a model.", show_default=False),
]
LpipsOption = Annotated[
    Path | None, typer.Option(help="LPIPS and --fid use these SqueezeNet 1.1 weights. Default: the bundled ones.", show_default=False)
]
VggOption = Annotated[
    Path | None, typer.Option(help="LPIPS (VGG) uses these VGG-16 weights; without them it is left out.", show_default=False)
]
AlexOption = Annotated[
    Path | None, typer.Option(help="LPIPS (Alex) uses these AlexNet weights; without them it is left out.", show_default=False)
]
IdentityOption = Annotated[
    str | None,
    typer.Option(
        help="CSIM and AED use this ONNX face recognition network; hub:owner/repository/file.onnx fetches one.", show_default=False
    ),
]
Landmarks68Option = Annotated[
    Path | None,
    typer.Option(
        "--landmarks68",
        help="AKD is measured with this ONNX network too: 3 x 256 x 256 RGB in [0, 1] in, 68 heatmaps out.",
        show_default=False,
    ),
]
ActionUnitsOption = Annotated[
    Path | None,
    typer.Option(
        "--action-units",
        help="AUCON takes action units from this ONNX network: square RGB faces in [0, 1] in, a probability for each unit out. "
        "Default: from the face landmarker's blendshapes.",
        show_default=False,
    ),
]
PortraitsOption = Annotated[
    Path | None, typer.Option(help="Sources come from this folder. Default: they are the clips' first frames.", show_default=False)
]
LegacyOption = Annotated[bool, typer.Option("--legacy-range", help="Measure PSNR and SSIM with data range 2 too, as some publish them.")]
FidOption = Annotated[
    bool, typer.Option("--fid", help="Measure the Fréchet distance too, on features of --fid-network, or of SqueezeNet 1.1 without it.")
]
FidNetworkOption = Annotated[Path | None, typer.Option(help="Features for --fid come from this ONNX network.", show_default=False)]
FolderOption = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="Write report and pictures to this folder; a run that was stopped goes on there.", show_default=False
    ),
]
SummaryOption = Annotated[Path | None, typer.Option("--json", help="Write the means too, to this file (.json).", show_default=False)]
ReplaceReportsOption = Annotated[bool, typer.Option("--overwrite", help="Replace reports that exist already.")]



@app.command("reconstruction")
def reconstruction(
    clips: ClipsArgument,
    model: ModelsOption = None,
    no_model: NoModelOption = False,
    results: ResultsOption = None,
    pairs: PairsOption = None,
    runtime: RuntimeOption = None,
    device: RunDeviceOption = "auto",
    precision: PrecisionOption = "auto",
    keypoints: KeypointsOption = "auto",
    hold_out: HoldOutOption = 0.0,
    layout: LayoutOption = "auto",
    every: EveryOption = 5,
    size: SizeOption = None,
    lpips: LpipsOption = None,
    lpips_vgg: VggOption = None,
    lpips_alex: AlexOption = None,
    identity: IdentityOption = None,
    landmarks68: Landmarks68Option = None,
    action_units: ActionUnitsOption = None,
    legacy_range: LegacyOption = False,
    fid: FidOption = False,
    fid_network: FidNetworkOption = None,
    workers: WorkersOption = 1,
    cluster: ClusterOption = None,
    output: FolderOption = None,
    summary: SummaryOption = None,
    overwrite: ReplaceReportsOption = False,
) -> None:
    """Rebuild clips from their first frame, beside the baseline that copies it."""
    require_extra("evaluate", "measuring")
    from dagan.evaluate.protocols import EvaluateOptions, evaluate_reconstruction

    options = EvaluateOptions(
        results=results or (), pairs=pairs, hold_out=hold_out, layout=layout, every=every, size=size, lpips=lpips,
        lpips_vgg=lpips_vgg, lpips_alex=lpips_alex, identity=identity, landmarks68=landmarks68, action_units=action_units,
        legacy_range=legacy_range, fid=fid, fid_network=fid_network,
        workers=workers, cluster=cluster, folder=output, summary=summary, overwrite=overwrite,
    )  # fmt: skip
    specs = specs_of(model, no_model, runtime, device, precision, keypoints)
    _evaluate(evaluate_reconstruction, clips, specs, options)


@app.command("cross-identity")
def cross_identity(
    clips: ClipsArgument,
    model: ModelsOption = None,
    no_model: NoModelOption = False,
    results: ResultsOption = None,
    portraits: PortraitsOption = None,
    pairs: PairsOption = None,
    count: Annotated[int | None, typer.Option(help="Draw so many pairs. Default: one for each clip.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="Other seeds draw other pairs.")] = 0,
    absolute: Annotated[bool, typer.Option("--absolute", help="Take the driving pose as it is, not its changes.")] = False,
    adapt_scale: Annotated[
        bool, typer.Option("--adapt-scale/--no-adapt-scale", help="Fit the size of movements to the size of the source's face.")
    ] = True,
    reference: Annotated[str, typer.Option(help="This driving frame stands for the source's pose: auto or first.")] = "auto",
    runtime: RuntimeOption = None,
    device: RunDeviceOption = "auto",
    precision: PrecisionOption = "auto",
    keypoints: KeypointsOption = "auto",
    hold_out: HoldOutOption = 0.0,
    layout: LayoutOption = "auto",
    every: EveryOption = 5,
    size: SizeOption = None,
    lpips: LpipsOption = None,
    identity: IdentityOption = None,
    action_units: ActionUnitsOption = None,
    fid: FidOption = False,
    fid_network: FidNetworkOption = None,
    workers: WorkersOption = 1,
    cluster: ClusterOption = None,
    output: FolderOption = None,
    summary: SummaryOption = None,
    overwrite: ReplaceReportsOption = False,
) -> None:
    """Animate a picture of one person with a clip of another."""
    require_extra("evaluate", "measuring")
    from dagan.evaluate.protocols import EvaluateOptions, evaluate_cross_identity

    options = EvaluateOptions(
        results=results or (), portraits=portraits, pairs=pairs, count=count, seed=seed, absolute=absolute,
        adapt_scale=adapt_scale, reference=reference, hold_out=hold_out, layout=layout, every=every, size=size,
        lpips=lpips, identity=identity, action_units=action_units, fid=fid, fid_network=fid_network,
        workers=workers, cluster=cluster, folder=output,
        summary=summary, overwrite=overwrite,
    )  # fmt: skip
    specs = specs_of(model, no_model, runtime, device, precision, keypoints)
    _evaluate(evaluate_cross_identity, clips, specs, options)


def specs_of(
    names: list[str] | None, none: bool, runtime: str | None, device: str, precision: str, keypoints: str
) -> list[ModelSpec]:
    """Describes the models to measure, each with a way to open its engine, here or in another process. Raises InputError."""
    from functools import partial

    from dagan.engine.open import describe
    from dagan.engine.sessions import TORCH
    from dagan.evaluate.methods import ModelSpec

    found = []
    for model in [] if none else names or ["lite-256"]:
        path = Path(model)
        # Nothing is left to "auto", because a run may go on, from its cache, on a machine where that means something else.
        known = describe(model, runtime, device, precision)
        if known.runtime != TORCH:  # Graphs that are missing are exported here, and not by several processes at once.
            open_chosen(model, known.runtime, None, known.device, known.precision)
        found.append(
            ModelSpec(
                name=path.stem if path.suffix == ".safetensors" else path.name,
                opener=partial(open_chosen, model, known.runtime, None, known.device, known.precision),
                source=path.name,
                digest=known.digest,
                size=known.size,
                runtime=known.runtime,
                device=known.device,
                precision=known.precision,
                keypoints=keypoints,
            )
        )
    return found


def _evaluate(job: Callable[..., Run], clips: Path, models: list[ModelSpec], options: EvaluateOptions) -> None:
    from dagan.cli.console import check_printed, progress_bar, warn

    with progress_bar() as progress:
        run = job(clips, models, options, progress, warn)
    _warn_of_problems(run.evaluation.scores)
    print_table(run.evaluation)
    if run.report:
        print(f"report: {', '.join(str(path) for path in run.report)}")
    if options.folder is None and options.summary is None:
        check_printed()


def _warn_of_problems(scores: Sequence[PairScores]) -> None:
    from dagan.cli.console import warn

    problems = [s for s in scores if s.problem]
    for s in problems[:_MOST_PROBLEMS]:
        warn(f"{s.method}, {s.pair}: {s.problem}")
    if len(problems) > _MOST_PROBLEMS:
        warn(f"... and {len(problems) - _MOST_PROBLEMS} more problems; the report lists all")


def print_table(evaluation: Evaluation) -> None:
    from rich.console import Console
    from rich.table import Table

    from dagan.evaluate.records import COPY
    from dagan.evaluate.statistics import against_copy, means

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


@app.command("depth")
def evaluate_depth(
    clips: Annotated[
        Path,
        typer.Argument(help="Measure on this folder of clips, from `dagan synth` (with ground truth) or real ones.", show_default=False),
    ],
    weights: Annotated[
        str, typer.Option(help="Measure these weights: a depth file or checkpoint of stage 1, a model file, or a model's name.")
    ] = "lite-256",
    egomotion: Annotated[
        Path | None, typer.Option(help="This checkpoint of stage 1 tells pose and focal length.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write report and pictures to this folder.", show_default=False)
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="The network sees pictures of this side. Default: as it was trained.", show_default=False)
    ] = None,
    every: Annotated[int, typer.Option(help="Measure every n-th frame.")] = 10,
    gap: Annotated[int, typer.Option(help="Motion is measured between two frames that lie so many frames apart.")] = 5,
    limit: Annotated[int | None, typer.Option(help="Measure at most so many clips.", show_default=False)] = None,
    pictures: Annotated[int, typer.Option(help="Draw so many of the clips.")] = 6,
    hold_out: HoldOutOption = 0.0,
    layout: LayoutOption = "auto",
    device: RunDeviceOption = "auto",
    overwrite: OverwriteOption = False,
) -> None:
    """Measure depth: against ground truth on synthetic heads, and against face landmarks on real clips."""
    from dagan.cli.console import check_printed, progress_bar
    from dagan.evaluate.depth import EvaluateDepthOptions, measure_folder, write_reports

    options = EvaluateDepthOptions(
        weights=weights, egomotion=egomotion, output=output, size=size, every=every, gap=gap, clips=limit, pictures=pictures,
        hold_out=hold_out, layout=layout, device=device, overwrite=overwrite,
    )  # fmt: skip
    with progress_bar() as progress:
        summary, found = measure_folder(clips, options, progress)
    _print_depth(summary)
    if output is not None:
        files = write_reports(output, summary, found, overwrite)
        print(f"{output}: {len(files)} files, {files[0].name} and {files[1].name} first")
    else:
        check_printed()


def _print_depth(summary: DepthSummary) -> None:
    from rich.console import Console
    from rich.table import Table

    from dagan.evaluate.depth import rows

    console = Console()
    for kind, count, table in (("synthetic", summary.synthetic_clips, summary.synthetic), ("real", summary.real_clips, summary.real)):
        if count:
            drawn = Table("figure", "value", "baseline", "baseline is", title=f"{count} {kind} clips")
            for row in rows(table):
                drawn.add_row(*row)
            console.print(drawn)
    for note in summary.notes:
        console.print(note, highlight=False)
    if summary.missing_faces:
        console.print(f"{summary.missing_faces} of {summary.frames} frames without a face found are missing from the landmarker's rows")
