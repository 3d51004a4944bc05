"""`export.json` is a note in an exported folder. It says enough to run the graphs without the model, here or in another program."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dagan.checks import Checked, Few, Positive, Side, dump, parse
from dagan.config import ModelConfig
from dagan.errors import InputError

NOTE_FILE = "export.json"
FORMAT = 2  # Since this format the generator gives its motion too.
ENCODER, KEYPOINTS, DEPTH, GENERATOR = "encoder", "keypoints", "depth", "generator"  # These are the names of the graphs.
Format = Literal["onnx", "openvino"]
SUFFIXES: dict[str, tuple[str, ...]] = {"onnx": (".onnx",), "openvino": (".xml", ".bin")}


@dataclass(frozen=True, kw_only=True)
class GraphNote(Checked):
    """What the note says about one graph."""

    files: dict[str, str]
    """The SHA-256 of each file by its name. The graph itself comes first, then files with its weights."""
    inputs: dict[str, list[int | str]]
    """The shape of each input by its name. A free dimension is called "batch"."""
    outputs: dict[str, list[int | str]]
    """The shape of each output by its name, likewise."""
    difference: float
    """The largest absolute difference between an output and PyTorch's in float32, measured on check pictures."""
    mean_difference: float
    """The mean absolute difference, measured likewise."""


@dataclass(frozen=True, kw_only=True)
class ExportNote(Checked):
    """What the note says about a folder of graphs."""

    format: int = FORMAT
    """The version of this note's format."""
    kind: Format
    """The format of the graphs."""
    name: str
    """The model's name."""
    image_size: Side
    """The side of the images that the model takes."""
    keypoints: Few
    """The number of the model's keypoints."""
    has_depth: bool
    """Whether the model has a depth network."""
    depth_range: tuple[Positive, Positive]
    """The nearest and the farthest depth."""
    detector: str
    """The digest of the weights that find keypoints; see `Engine.detector_digest`."""
    weights: str
    """The digest of all weights of the model."""
    opset: int
    """The version of ONNX's set of operators that the graphs use."""
    precision: Literal["float32", "int8"] = "float32"
    """This is int8 where convolutions were quantised."""
    quantised: list[str] = field(default_factory=list)
    """The names of the graphs whose convolutions were quantised."""
    weight_bits: int | None = None
    """The bits of quantised weights. Notes that do not say so have None; they mean 8 where anything was quantised."""
    graphs: dict[str, GraphNote]
    """What is to be said about each graph, by its name."""
    config: ModelConfig
    """The model's configuration."""


def write_note(folder: Path, note: ExportNote) -> None:
    """Writes the note into `folder`."""
    (folder / NOTE_FILE).write_text(json.dumps(dump(note), indent=1), encoding="utf-8")


def is_exported(path: Path) -> bool:
    """Says whether `path` is a folder that `dagan export` wrote."""
    return (path / NOTE_FILE).is_file()


def read_note(folder: Path) -> ExportNote:
    """Reads the note in `folder`. Raises InputError when it is missing, damaged or of another version."""
    path = folder / NOTE_FILE
    if not path.is_file():
        kind = "is not a folder that dagan export wrote: it has no" if folder.is_dir() else "does not exist: there is no"
        raise InputError(f"{folder} {kind} {NOTE_FILE}")
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        version = data["format"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is damaged: export the model again") from None
    if version != FORMAT:
        raise InputError(f"{path} has format {version!r}, this version reads {FORMAT}: export the model again")
    return parse(ExportNote, data, str(path))


def check_files(folder: Path, graph: GraphNote) -> Path:
    """Compares the bytes of a graph's files with the note and returns the graph's path. Raises InputError for a missing or changed file."""
    for name, digest in graph.files.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise InputError(f"{path} is missing: export the model again")
        if file_digest(path) != digest:
            raise InputError(f"{path} is damaged (its checksum differs from the one in {NOTE_FILE}): export the model again")
    return folder / next(iter(graph.files))


def file_digest(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
