"""The command line: parses, calls one job, prints. Each command's work lives in `dagan.commands` and is imported when called."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dagan.cli_ablate import app as ablate_app
from dagan.cli_bench import bench
from dagan.cli_evaluate import app as evaluate_app
from dagan.cli_export import RuntimeOption, export
from dagan.console import check_printed, lenient_streams
from dagan.errors import InputError

app = typer.Typer(
    name="dagan", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False,
    help="Depth-aware talking heads: one portrait and a driving video in, a talking head out.",
)  # fmt: skip
train_app = typer.Typer(no_args_is_help=True, help="Train from a recipe: first the depth network, then the generator.")
# Help lists panels and commands in the order in which they are registered here and below: single commands, then groups.
ANIMATE, MEASURE, TRAIN, MODELS = "Animate", "Measure", "Train", "Models"
app.add_typer(evaluate_app, name="evaluate", rich_help_panel=MEASURE)
app.add_typer(train_app, name="train", rich_help_panel=TRAIN)
app.add_typer(ablate_app, name="ablate", rich_help_panel=TRAIN)


RecipeArgument = Annotated[Path, typer.Argument(help="Recipe, a YAML file such as those in recipes/.")]
OverrideArguments = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change, such as optimiser.lr=1e-4.", show_default=False)
]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", help="Folder of checkpoints, logs and weights.", show_default=False)]
DeviceOption = Annotated[str | None, typer.Option("--device", help="Where to train: auto, cpu, cuda or mps.", show_default=False)]
ResumeOption = Annotated[
    bool | None,
    typer.Option("--resume/--fresh", help="Demand a run to continue, or remove one. Default: continue any.", show_default=False),
]

SourceArgument = Annotated[Path, typer.Argument(help="Photo to animate.", show_default=False)]
DrivingArgument = Annotated[Path, typer.Argument(help="Video, folder of images or motion file that drives it.", show_default=False)]
PicturesArgument = Annotated[Path, typer.Argument(help="Photo, video or folder of images.", show_default=False)]
VideoOption = Annotated[
    Path,
    typer.Option(
        "--output", "-o", help="Video (.mp4, .mov, .mkv, .webm) or animated picture (.gif, .webp, .png) to write.", show_default=False
    ),
]
DepthOption = Annotated[
    Path, typer.Option("--output", "-o", help="To write: .png, .mp4 or .gif (colours), .npz (numbers), .ply (points).", show_default=False)
]
ModelOption = Annotated[str, typer.Option("--model", help="Bundled model's name, model file, exported folder, or hub id owner/repository.")]
RunDeviceOption = Annotated[str, typer.Option("--device", help="Where to compute: auto, cpu, cuda, cuda:N or mps.")]
PrecisionOption = Annotated[str, typer.Option("--precision", help="auto, float32, bfloat16, float16, or int8 (lite models, CPU).")]
BatchOption = Annotated[int | None, typer.Option("--batch-size", help="Frames computed at once.", show_default=False)]
CropOption = Annotated[bool, typer.Option("--crop/--no-crop", help="Find and cut out the face; otherwise the middle is taken.")]
RateOption = Annotated[str | None, typer.Option("--frame-rate", help="Of a folder of images. Default: 25.", show_default=False)]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")]


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"dagan {installed('dagan')}")
        raise typer.Exit


@app.command("animate", rich_help_panel=ANIMATE)
def animate(
    source: SourceArgument,
    driving: DrivingArgument,
    output: VideoOption,
    model: ModelOption = "lite-256",
    runtime: RuntimeOption = None,
    device: RunDeviceOption = "auto",
    precision: PrecisionOption = "auto",
    batch_size: BatchOption = None,
    crop: CropOption = True,
    absolute: Annotated[bool, typer.Option("--absolute", help="Take the driving pose as it is, not its changes.")] = False,
    adapt_scale: Annotated[
        bool, typer.Option("--adapt-scale/--no-adapt-scale", help="Fit the size of movements to the size of the source's face.")
    ] = True,
    limit_motion: Annotated[
        bool, typer.Option("--limit-motion/--no-limit-motion", help="Damp motion that goes farther than the model can draw.")
    ] = True,
    reference: Annotated[
        str | None,
        typer.Option(help="Driving frame taken as the source's pose: auto, first or a number. Default: auto.", show_default=False),
    ] = None,
    side_by_side: Annotated[bool, typer.Option("--side-by-side", help="Show source, driving frame, depth and result.")] = False,
    paste_back: Annotated[bool, typer.Option("--paste-back", help="Put the result back into the whole photo.")] = False,
    max_side: Annotated[
        int, typer.Option("--max-side", help="With --paste-back, a photo whose longer side has more pixels is shrunk to so many.")
    ] = 1920,
    save_motion: Annotated[Path | None, typer.Option(help="Motion file to write too (.motion).", show_default=False)] = None,
    report: Annotated[Path | None, typer.Option("--json", help="Report to write too (.json).", show_default=False)] = None,
    frame_rate: RateOption = None,
    on_missing: Annotated[
        str,
        typer.Option(
            "--on-missing",
            help="What takes the place of driving frames without a face: hold keeps the nearest motion, rest lets the source rest, "
            "error refuses the video.",
        ),
    ] = "hold",
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="hardware (where there is one), or an encoder's name.", show_default=False)
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Animate a photo with the motion of a video."""
    from dagan.commands.animate import AnimateOptions, animate_file, parse_rate

    options = AnimateOptions(
        model=model,
        device=device,
        precision=precision,
        batch_size=batch_size,
        crop=crop,
        relative=not absolute,
        adapt_scale=adapt_scale,
        limit_motion=limit_motion,
        reference=reference,
        side_by_side=side_by_side,
        paste_back=paste_back,
        max_side=max_side,
        save_motion=save_motion,
        report=report,
        frame_rate=parse_rate(frame_rate),
        encoder=encoder,
        on_missing=on_missing,
        overwrite=overwrite,
    )
    animate_file(source, driving, output, options, runtime)


@app.command("depth", rich_help_panel=MEASURE)
def depth(
    source: PicturesArgument,
    output: DepthOption,
    model: ModelOption = "lite-256",
    runtime: RuntimeOption = None,
    device: RunDeviceOption = "auto",
    precision: PrecisionOption = "auto",
    batch_size: BatchOption = None,
    crop: CropOption = True,
    colours: Annotated[str, typer.Option("--colours", help="Colour map, such as inferno, turbo or gray.")] = "inferno",
    focal: Annotated[
        float | None, typer.Option("--focal", help="Focal length assumed for points, in picture widths. Default: 1.5.", show_default=False)
    ] = None,
    frame_rate: RateOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Measure the depth of a face in a photo or video."""
    from dagan.commands.depth import ASSUMED_FOCAL, DepthOptions, depth_file, parse_rate

    options = DepthOptions(
        model=model,
        device=device,
        precision=precision,
        batch_size=batch_size,
        crop=crop,
        colours=colours,
        focal=ASSUMED_FOCAL if focal is None else focal,
        frame_rate=parse_rate(frame_rate),
        overwrite=overwrite,
    )
    depth_file(source, output, options, runtime)


app.command("bench", rich_help_panel=MEASURE)(bench)


@app.command("synth", rich_help_panel=TRAIN)
def synth(
    output: Annotated[Path, typer.Argument(help="Folder to write clips to.", show_default=False)],
    clips: Annotated[int, typer.Option(help="How many clips; a folder can grow later.")] = 10,
    size: Annotated[int, typer.Option(help="Side of the pictures in pixels.")] = 256,
    seed: Annotated[int, typer.Option(help="Other seeds give other heads.")] = 0,
    frames: Annotated[int, typer.Option(help="Frames of a clip, 25 a second.")] = 100,
    workers: Annotated[int, typer.Option(help="Clips made at once, each by a process of its own.")] = 1,
    overwrite: OverwriteOption = False,
) -> None:
    """Make clips of synthetic talking heads with exact depth, camera, pose and landmarks."""
    from dagan.commands.synth import synthesise_folder

    synthesise_folder(output, clips, size, seed, frames, workers, overwrite)


@app.command("convert", rich_help_panel=MODELS)
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="Released .pth.tar, or model file to go back.", show_default=False)],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Model file to write (.safetensors).", show_default=False)] = None,
    depth_dir: Annotated[
        Path | None, typer.Option("--depth-dir", help="Folder of encoder.pth and depth.pth; none for RGB-only.", show_default=False)
    ] = None,
    with_discriminator: Annotated[bool, typer.Option("--with-discriminator", help="Keep it, for fine-tuning.")] = False,
    image_size: Annotated[int, typer.Option("--image-size", help="Side of the images it was trained on.")] = 256,
    to_released: Annotated[
        Path | None, typer.Option("--to-released", help="Folder to write a model file to in the released layout.", show_default=False)
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Turn a released checkpoint into a model file, or back."""
    from dagan.commands.convert import ConvertOptions, convert_file

    options = ConvertOptions(
        output=output, released=to_released, depth_dir=depth_dir, image_size=image_size,
        with_discriminator=with_discriminator, overwrite=overwrite,
    )  # fmt: skip
    convert_file(checkpoint, options)


app.command("export", rich_help_panel=MODELS)(export)


@evaluate_app.command("depth")
def evaluate_depth(
    clips: Annotated[Path, typer.Argument(help="Folder of clips: of `dagan synth` (ground truth) or real ones.", show_default=False)],
    weights: Annotated[str, typer.Option(help="Depth file or checkpoint of stage 1, model file, or model name.")] = "lite-256",
    egomotion: Annotated[Path | None, typer.Option(help="Stage 1 checkpoint, for pose and focal length.", show_default=False)] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for report and pictures.", show_default=False)] = None,
    size: Annotated[int | None, typer.Option(help="Side of the network's pictures. Default: as trained.", show_default=False)] = None,
    every: Annotated[int, typer.Option(help="Measure each n-th frame.")] = 10,
    gap: Annotated[int, typer.Option(help="Frames between the two of which motion is measured.")] = 5,
    limit: Annotated[int | None, typer.Option(help="Measure at most so many clips.", show_default=False)] = None,
    pictures: Annotated[int, typer.Option(help="Clips to draw.")] = 6,
    hold_out: Annotated[float, typer.Option(help="Share of identities that training held out; 0 measures every clip.")] = 0.0,
    device: RunDeviceOption = "auto",
    overwrite: OverwriteOption = False,
) -> None:
    """Measure depth: against ground truth on synthetic heads, against face landmarks on real clips."""
    from dagan.commands.evaluate_depth import EvaluateDepthOptions, evaluate_depth

    options = EvaluateDepthOptions(
        weights=weights, egomotion=egomotion, output=output, size=size, every=every, gap=gap, clips=limit, pictures=pictures,
        hold_out=hold_out, device=device, overwrite=overwrite,
    )  # fmt: skip
    evaluate_depth(clips, options)


@train_app.command("depth")
def train_depth(
    recipe: RecipeArgument,
    overrides: OverrideArguments = None,
    output: OutputOption = None,
    device: DeviceOption = None,
    resume: ResumeOption = None,
) -> None:
    """Stage 1: learn the face depth network from plain videos."""
    from dagan.commands.train import train_stage

    train_stage("depth", recipe, overrides or [], output, device, _start(resume))


@train_app.command("gan")
def train_gan(
    recipe: RecipeArgument,
    overrides: OverrideArguments = None,
    output: OutputOption = None,
    device: DeviceOption = None,
    resume: ResumeOption = None,
) -> None:
    """Stage 2: learn keypoints, motion and generator, on a trained depth network."""
    from dagan.commands.train import train_stage

    train_stage("gan", recipe, overrides or [], output, device, _start(resume))


def _start(resume: bool | None) -> str:
    return "auto" if resume is None else "resume" if resume else "fresh"


def main() -> None:
    """Entry point. Bad input ends in one sentence and status 2, an interrupt in status 130."""
    with lenient_streams():
        try:
            app()
        except SystemExit:
            if {"--help", "--version"} & set(sys.argv):
                check_printed()
            raise
        except InputError as error:
            print(f"dagan: {error}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("dagan: interrupted", file=sys.stderr)
            sys.exit(130)
