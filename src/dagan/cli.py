"""The command line: parses, calls one job, prints. Each command's work lives in `dagan.commands` and is imported when called."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dagan.cli_ablate import app as ablate_app
from dagan.cli_bench import bench
from dagan.cli_evaluate import KeypointsOption
from dagan.cli_evaluate import app as evaluate_app
from dagan.cli_export import RuntimeOption, export
from dagan.console import check_printed, lenient_streams
from dagan.errors import InputError, missing_module, require_extra

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


RecipeArgument = Annotated[Path, typer.Argument(help="The recipe is a YAML file, such as those in recipes/.")]
OverrideArguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...", help="These settings take the place of the recipe's, such as optimiser.lr=1e-4.", show_default=False
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="This folder takes checkpoints, logs and weights. Default: as the recipe says.", show_default=False
    ),
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="The device trains: auto, cpu, cuda or mps. Default: as the recipe says.", show_default=False)
]
ResumeOption = Annotated[
    bool | None,
    typer.Option(
        "--resume/--fresh",
        help="Demand a run to continue, or remove the one that is there. By default a run goes on where there is one.",
        show_default=False,
    ),
]

SourceArgument = Annotated[Path, typer.Argument(help="The photo shows the face to animate.", show_default=False)]
DrivingArgument = Annotated[Path, typer.Argument(help="A video, a folder of images or a motion file drives the photo.", show_default=False)]
PicturesArgument = Annotated[Path, typer.Argument(help="Depth is measured in this photo, video or folder of images.", show_default=False)]
VideoOption = Annotated[
    Path,
    typer.Option(
        "--output", "-o", help="Write this video (.mp4, .mov, .mkv, .webm) or animated picture (.gif, .webp, .png).", show_default=False
    ),
]
DepthOption = Annotated[
    Path,
    typer.Option(
        "--output", "-o", help="Write this file: colours as .png, .mp4 or .gif, numbers as .npz, points as .ply.", show_default=False
    ),
]
ModelOption = Annotated[
    str, typer.Option("--model", help="The model is a bundled one's name, a model file, an exported folder, or a hub id owner/repository.")
]
RunDeviceOption = Annotated[str, typer.Option("--device", help="This device computes: auto, cpu, cuda, cuda:N or mps.")]
PrecisionOption = Annotated[
    str,
    typer.Option("--precision", help="Numbers have this precision: auto, float32, bfloat16, float16, or int8 (for lite models on CPUs)."),
]
BatchOption = Annotated[
    int | None,
    typer.Option("--batch-size", help="So many frames are computed at once. Default: what suits the device.", show_default=False),
]
CropOption = Annotated[bool, typer.Option("--crop/--no-crop", help="Find and cut out the face; otherwise the middle square is taken.")]
RateOption = Annotated[
    str | None, typer.Option("--frame-rate", help="A folder of images is taken at this frame rate. Default: 25.", show_default=False)
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist already.")]


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
        typer.Option(help="This driving frame stands for the source's pose: auto, first or a number. Default: auto.", show_default=False),
    ] = None,
    side_by_side: Annotated[bool, typer.Option("--side-by-side", help="Show source, driving frame, depth and result.")] = False,
    paste_back: Annotated[bool, typer.Option("--paste-back", help="Put the result back into the whole photo.")] = False,
    max_side: Annotated[
        int, typer.Option("--max-side", help="With --paste-back, a photo whose longer side has more pixels is shrunk to so many.")
    ] = 1920,
    save_motion: Annotated[
        Path | None,
        typer.Option(help="Write the motion too, to this file (.motion), which drives again without the video.", show_default=False),
    ] = None,
    report: Annotated[Path | None, typer.Option("--json", help="Write a report too, to this file (.json).", show_default=False)] = None,
    frame_rate: RateOption = None,
    on_missing: Annotated[
        str,
        typer.Option(
            "--on-missing",
            help="What takes the place of driving frames without a face: hold keeps the nearest motion, rest lets the source rest, "
            "error refuses the video.",
        ),
    ] = "hold",
    keypoints: KeypointsOption = "auto",
    encoder: Annotated[
        str | None,
        typer.Option(
            "--encoder",
            help="Encode with the machine's own encoder (hardware), where there is one, or with the encoder of this name.",
            show_default=False,
        ),
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
        keypoints=keypoints,
        overwrite=overwrite,
    )
    animate_file(source, driving, output, options, runtime)


@app.command("demo", rich_help_panel=ANIMATE)
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Write this video (.mp4, .mov, .mkv, .webm) or animated picture (.gif, .webp, .png).")
    ] = Path("demo.mp4"),
    overwrite: OverwriteOption = False,
) -> None:
    """Animate the portrait that ships in the package, with the motion that ships beside it."""
    from dagan.commands.demo import animate_example

    animate_example(output, overwrite)


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
    colours: Annotated[
        str, typer.Option("--colours", help="Depth is drawn in this colour map, such as inferno, turbo or gray.")
    ] = "inferno",
    focal: Annotated[
        float | None, typer.Option("--focal", help="Points assume this focal length, in picture widths. Default: 1.5.", show_default=False)
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
    output: Annotated[Path, typer.Argument(help="Clips are written to this folder.", show_default=False)],
    clips: Annotated[int, typer.Option(help="Make so many clips; a folder can grow later.")] = 10,
    size: Annotated[int, typer.Option(help="Pictures have this side, in pixels.")] = 256,
    seed: Annotated[int, typer.Option(help="Other seeds give other heads.")] = 0,
    frames: Annotated[int, typer.Option(help="A clip has so many frames, 25 a second.")] = 100,
    workers: Annotated[int, typer.Option(help="Make so many clips at once, each by a process of its own.")] = 1,
    overwrite: OverwriteOption = False,
) -> None:
    """Make clips of synthetic talking heads with exact depth, camera, pose and landmarks."""
    from dagan.commands.synth import synthesise_folder

    synthesise_folder(output, clips, size, seed, frames, workers, overwrite)


@app.command("convert", rich_help_panel=MODELS)
def convert(
    checkpoint: Annotated[
        Path, typer.Argument(help="Convert this released checkpoint (.pth.tar), or this model file on the way back.", show_default=False)
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write this model file (.safetensors).", show_default=False)] = None,
    depth_dir: Annotated[
        Path | None,
        typer.Option(
            "--depth-dir", help="This folder holds encoder.pth and depth.pth; models without depth have none.", show_default=False
        ),
    ] = None,
    with_discriminator: Annotated[bool, typer.Option("--with-discriminator", help="Keep the discriminator, for fine-tuning.")] = False,
    image_size: Annotated[int, typer.Option("--image-size", help="The checkpoint was trained on images of this side, in pixels.")] = 256,
    to_released: Annotated[
        Path | None, typer.Option("--to-released", help="Write the model file to this folder, in the released layout.", show_default=False)
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
    hold_out: Annotated[
        float, typer.Option(help="Training held out this share of the identities, which are measured; 0 measures every clip.")
    ] = 0.0,
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
    require_extra("train", "training")
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
    require_extra("train", "training")
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
        except ImportError as error:
            sentence = missing_module(error)
            if sentence is None:
                raise
            print(f"dagan: {sentence}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("dagan: interrupted", file=sys.stderr)
            sys.exit(130)
