"""Models in other formats. Both commands print what came of it.

`dagan convert` turns released checkpoints into model files and back, and `dagan export` writes a model as graphs for other runtimes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from dagan.cli.options import OverwriteOption
from dagan.errors import InputError

if TYPE_CHECKING:
    from dagan.config import ModelConfig


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
    options = ConvertOptions(
        output=output, released=to_released, depth_dir=depth_dir, image_size=image_size,
        with_discriminator=with_discriminator, overwrite=overwrite,
    )  # fmt: skip
    convert_file(checkpoint, options)


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """What to convert to: exactly one of `output` and `released` is given. See `read_released` for the others."""

    output: Path | None = None
    """The model file to write."""
    released: Path | None = None
    """The folder to write released files to."""
    depth_dir: Path | None = None
    image_size: int = 256
    with_discriminator: bool = False
    overwrite: bool = False


def convert_file(source: Path, options: ConvertOptions) -> None:
    """Converts and prints one line about the result. Raises InputError for bad input, and for outputs that exist or cannot be written."""
    if options.released is not None:
        if options.output is not None or options.depth_dir is not None or options.with_discriminator:
            raise InputError("--to-released stands alone: leave out -o, --depth-dir and --with-discriminator, the model file holds it all")
        _to_released(source, options.released, options.overwrite)
    elif options.output is not None:
        _to_ours(source, options.output, options)
    else:
        raise InputError("nothing to write: give -o OUT.safetensors to convert a checkpoint, or --to-released DIR to go back")


def _to_ours(source: Path, output: Path, options: ConvertOptions) -> None:
    if output.suffix != ".safetensors":
        raise InputError(f"{output} is no name of a model file: end it in .safetensors")
    from dagan.media.output import atomic_output
    from dagan.weights.convert import read_released, save_released

    with atomic_output(output, options.overwrite) as partial:
        released = read_released(
            source, options.depth_dir, image_size=options.image_size, with_discriminator=options.with_discriminator
        )  # fmt: skip
        save_released(partial, released, f"converted from the released checkpoint {source.name}")
    print(f"{output}: {describe(released.config)}{', with its discriminator' if released.has_discriminator else ''}")


def _to_released(source: Path, folder: Path, overwrite: bool) -> None:
    from contextlib import ExitStack

    import torch

    from dagan.media.output import atomic_output
    from dagan.weights.convert import released_files

    if folder.is_file():
        raise InputError(f"{folder} is a file: give the name of a folder")
    files = released_files(source)
    with ExitStack() as outputs:  # All files are written before any gets its name.
        partials = {name: outputs.enter_context(atomic_output(folder / name, overwrite)) for name in files}
        for name, content in files.items():
            torch.save(content, partials[name])
    print(f"{folder}: {', '.join(files)}")


def describe(config: ModelConfig) -> str:
    """Says in words what was found."""
    depth = f"depth by {config.depth.encoder}" if config.use_depth else "RGB only"
    return (
        f"{config.name}, {config.generator.decoder} decoder of width {config.generator.width}, "
        f"{config.keypoints.count} keypoints, {depth}, images of {config.image_size} x {config.image_size}"
    )


def export(
    folder: Annotated[Path, typer.Option("--output", "-o", help="Write the graphs to this folder.", show_default=False)],
    model: Annotated[str, typer.Option("--model", help="The model is a bundled one's name, a model file, or a hub id.")] = "lite-256",
    kind: Annotated[
        str, typer.Option("--format", help="Graphs have this format: onnx, which also serves OpenVINO and TensorRT, or openvino.")
    ] = "onnx",
    int8: Annotated[bool, typer.Option("--int8", help="Quantise the generator's convolutions.")] = False,
    calibration: Annotated[Path | None, typer.Option(help="Calibrate int8 on this folder of clips.", show_default=False)] = None,
    weight_bits: Annotated[
        int, typer.Option(help="Quantise int8's weights to 7 bits, right on every processor, or to 8, right only where there is VNNI.")
    ] = 7,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an exported folder that exists already.")] = False,
) -> None:
    """Write a model as graphs for other runtimes."""
    from dataclasses import replace

    from dagan.cli.console import progress_bar
    from dagan.data.clips import find_clips
    from dagan.export.job import ExportOptions, check_export, export_model
    from dagan.weights import load

    options = ExportOptions(kind=cast(Any, kind), int8=int8, weight_bits=weight_bits, overwrite=overwrite)
    if options.int8 and calibration is None:
        raise InputError("--int8 needs --calibration: a folder of clips of faces, framed as the model's training clips")
    if calibration is not None:
        options = replace(options, calibration=tuple(clip.path for clip in find_clips(calibration)))
    check_export(folder, options)  # This comes before the model, which may have to be fetched.
    with progress_bar() as progress:
        note = export_model(load(model, "cpu", "float32"), folder, options, progress)
    print(f"{folder}: {note.name} as {note.kind}")
    for name, graph in note.graphs.items():
        precision = note.precision if name in note.quantised else "float32"
        differences = f"{graph.difference:.1e} at most, {graph.mean_difference:.1e} on average"
        print(f"  {next(iter(graph.files))}: {precision}, differs from PyTorch by {differences}")
