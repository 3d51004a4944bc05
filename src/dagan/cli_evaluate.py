"""Options of `dagan evaluate reconstruction` and `dagan evaluate cross-identity`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dagan.errors import require_extra

app = typer.Typer(no_args_is_help=True, help="Measure models, and results of other programs.")

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
    Path | None, typer.Option(help="Measure the pairs of this list, a CSV file with the columns source,driving,frame.", show_default=False)
]
DeviceOption = Annotated[str, typer.Option("--device", help="This device computes: auto, cpu, cuda, cuda:N or mps.")]
PrecisionOption = Annotated[str, typer.Option("--precision", help="Numbers have this precision: auto, float32, bfloat16 or float16.")]
HoldOutOption = Annotated[
    float, typer.Option(help="Training held out this share of the identities, which are measured; 0 measures every clip.")
]
EveryOption = Annotated[int, typer.Option(help="Measure every n-th frame.")]
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
PortraitsOption = Annotated[
    Path | None, typer.Option(help="Sources come from this folder. Default: they are the clips' first frames.", show_default=False)
]
LegacyOption = Annotated[bool, typer.Option("--legacy-range", help="Measure PSNR and SSIM with data range 2 too, as some publish them.")]
FidOption = Annotated[
    bool, typer.Option("--fid", help="Measure the Fréchet distance too, on features of --fid-network, or of SqueezeNet 1.1 without it.")
]
FidNetworkOption = Annotated[Path | None, typer.Option(help="Features for --fid come from this ONNX network.", show_default=False)]
WorkersOption = Annotated[int, typer.Option(help="So many processes measure, each on one core with models of its own.")]
KeypointsOption = Annotated[
    str,
    typer.Option(
        help="These drive: landmarks of every frame, learnt keypoints alone, or auto: landmarks where the model's keypoints stand on some."
    ),
]
FolderOption = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="Write report and pictures to this folder; a run that was stopped goes on there.", show_default=False
    ),
]
SummaryOption = Annotated[Path | None, typer.Option("--json", help="Write the means too, to this file (.json).", show_default=False)]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace reports that exist already.")]


@app.command("reconstruction")
def reconstruction(
    clips: ClipsArgument,
    model: ModelsOption = None,
    no_model: NoModelOption = False,
    results: ResultsOption = None,
    pairs: PairsOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    keypoints: KeypointsOption = "auto",
    hold_out: HoldOutOption = 0.0,
    every: EveryOption = 5,
    size: SizeOption = None,
    lpips: LpipsOption = None,
    lpips_vgg: VggOption = None,
    lpips_alex: AlexOption = None,
    identity: IdentityOption = None,
    legacy_range: LegacyOption = False,
    fid: FidOption = False,
    fid_network: FidNetworkOption = None,
    workers: WorkersOption = 1,
    output: FolderOption = None,
    summary: SummaryOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Rebuild clips from their first frame, beside the baseline that copies it."""
    require_extra("evaluate", "measuring")
    from dagan.commands.evaluate import EvaluateOptions, evaluate_reconstruction

    options = EvaluateOptions(
        models=_models(model, no_model), results=results or (), pairs=pairs, device=device, precision=precision,
        keypoints=keypoints, hold_out=hold_out, every=every, size=size, lpips=lpips,
        lpips_vgg=lpips_vgg, lpips_alex=lpips_alex, identity=identity,
        legacy_range=legacy_range, fid=fid, fid_network=fid_network, workers=workers, folder=output, summary=summary, overwrite=overwrite,
    )  # fmt: skip
    evaluate_reconstruction(clips, options)


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
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    keypoints: KeypointsOption = "auto",
    hold_out: HoldOutOption = 0.0,
    every: EveryOption = 5,
    size: SizeOption = None,
    lpips: LpipsOption = None,
    identity: IdentityOption = None,
    fid: FidOption = False,
    fid_network: FidNetworkOption = None,
    workers: WorkersOption = 1,
    output: FolderOption = None,
    summary: SummaryOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Animate a picture of one person with a clip of another."""
    require_extra("evaluate", "measuring")
    from dagan.commands.evaluate import EvaluateOptions, evaluate_cross_identity

    options = EvaluateOptions(
        models=_models(model, no_model), results=results or (), portraits=portraits, pairs=pairs, count=count, seed=seed, absolute=absolute,
        adapt_scale=adapt_scale, reference=reference, device=device, precision=precision,
        keypoints=keypoints, hold_out=hold_out, every=every, size=size,
        lpips=lpips, identity=identity, fid=fid, fid_network=fid_network, workers=workers, folder=output,
        summary=summary, overwrite=overwrite,
    )  # fmt: skip
    evaluate_cross_identity(clips, options)


def _models(models: list[str] | None, none: bool) -> list[str]:
    return [] if none else models or ["lite-256"]
