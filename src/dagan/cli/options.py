"""Options that several commands share, each declared once, and what is made of them: a frame rate, an open engine."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dagan.errors import InputError

if TYPE_CHECKING:
    from dagan.engine.base import Engine

ModelOption = Annotated[
    str, typer.Option("--model", help="The model is a bundled one's name, a model file, an exported folder, or a hub id owner/repository.")
]
# Options take plain words and not choices of the parser, because the job says in one sentence what there is.
RuntimeOption = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        help="This runtime computes: torch, onnxruntime or openvino. Default: torch, or what runs the exported folder.",
        show_default=False,
    ),
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
AbsoluteOption = Annotated[bool, typer.Option("--absolute", help="Take the driving pose as it is, not its changes.")]
LimitOption = Annotated[
    bool, typer.Option("--limit-motion/--no-limit-motion", help="Damp motion that goes farther than the model can draw.")
]
MoveOption = Annotated[
    str, typer.Option(help="This moves: all, expression (the head stays), pose (the face stays), mouth or eyes (all else stays).")
]
StrengthOption = Annotated[float, typer.Option(help="So much of what moves reaches the photo: 1 is as driven, 0 nothing, at most 2.")]
RateOption = Annotated[
    str | None, typer.Option("--frame-rate", help="A folder of images is taken at this frame rate. Default: 25.", show_default=False)
]
VideoOption = Annotated[
    Path,
    typer.Option(
        "--output", "-o", help="Write this video (.mp4, .mov, .mkv, .webm) or animated picture (.gif, .webp, .png).", show_default=False
    ),
]
CredentialsOption = Annotated[
    tuple[Path, Path] | None,
    typer.Option(
        "--credentials",
        metavar="CERT KEY",
        help="Sign Content Credentials with this certificate chain and private key, two PEM files (extra: credentials).",
        show_default=False,
    ),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist already.")]
KeypointsOption = Annotated[
    str,
    typer.Option(
        help="These drive: landmarks of every frame, learnt keypoints alone, or auto: landmarks where the model's keypoints stand on some."
    ),
]
HoldOutOption = Annotated[
    float, typer.Option(help="Training held out this share of the identities, which are measured; 0 measures every clip.")
]
LayoutOption = Annotated[
    str,
    typer.Option(help="Names tell whom clips show as in voxceleb1, voxceleb2, hdtf, celebv or plain; auto recognises one of them."),
]
EveryOption = Annotated[int, typer.Option(help="Measure every n-th frame.")]
WorkersOption = Annotated[int, typer.Option(help="So many processes measure, each on one core with models of its own.")]
ReportOption = Annotated[Path | None, typer.Option("--json", help="Write a report too, to this file (.json).", show_default=False)]
ClusterOption = Annotated[
    str | None,
    typer.Option(help="Workers are those of the Ray cluster at this address, or of one made here (local).", show_default=False),
]


def parse_rate(text: str | None) -> Fraction | None:
    """Reads a frame rate such as 25, 29.97 or 30000/1001. Raises InputError for anything else."""
    if text is None:
        return None
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise InputError(f"frame rate is {text!r}: must be a number such as 25, 29.97 or 30000/1001") from None
    if not 0 < rate <= 1000:
        raise InputError(f"frame rate is {text}: must be above 0, and at most 1000")
    return rate


def open_chosen(model: str, runtime: str | None, batch_size: int | None, device: str, precision: str) -> Engine:
    """Opens the engine of these options. Graphs that a runtime needs are exported on first use; a line on the error stream says so."""
    from dagan.cli.console import warn
    from dagan.engine.open import open_engine
    from dagan.export.job import export_graphs

    return open_engine(model, runtime, batch_size, device, precision, warn, export_graphs)
