"""`dagan export`, and the options of other commands that say which runtime computes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

# Plain words, not choices of the parser: the job says in one sentence what there is.
RuntimeOption = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        help="This runtime computes: torch, onnxruntime or openvino. Default: torch, or what runs the exported folder.",
        show_default=False,
    ),
]


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
    from dagan.commands.export import ExportOptions, export_file

    options = ExportOptions(kind=cast(Any, kind), int8=int8, weight_bits=weight_bits, overwrite=overwrite)
    export_file(model, folder, options, calibration)
