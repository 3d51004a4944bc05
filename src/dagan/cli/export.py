"""`dagan export` writes a model as graphs for other runtimes, and says what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from dagan.errors import InputError


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
