"""`export.json`, what an exported folder says of itself: enough to run its graphs without the model, here or in another program."""

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
FORMAT = 1
ENCODER, KEYPOINTS, DEPTH, GENERATOR = "encoder", "keypoints", "depth", "generator"  # names of the graphs
Format = Literal["onnx", "openvino"]
SUFFIXES: dict[str, tuple[str, ...]] = {"onnx": (".onnx",), "openvino": (".xml", ".bin")}


@dataclass(frozen=True, kw_only=True)
class GraphNote(Checked):
    """One graph. files: name -> SHA-256, the graph itself first. inputs, outputs: name -> shape, "batch" where it is free.
    difference, mean_difference: largest and mean absolute difference of an output to PyTorch's in float32, on check pictures."""

    files: dict[str, str]
    inputs: dict[str, list[int | str]]
    outputs: dict[str, list[int | str]]
    difference: float
    mean_difference: float


@dataclass(frozen=True, kw_only=True)
class ExportNote(Checked):
    """A folder of graphs. kind: the graphs' format. name, image_size, keypoints, has_depth, depth_range: what the model is.
    detector: see `Engine.detector_digest`. weights: digest of all weights. precision: float32, or int8 where convolutions
    were quantised. quantised: names of the graphs whose convolutions were; weight_bits: of those, None where the note does not say (8
    where anything was quantised). config: the model's."""

    format: int = FORMAT
    kind: Format
    name: str
    image_size: Side
    keypoints: Few
    has_depth: bool
    depth_range: tuple[Positive, Positive]
    detector: str
    weights: str
    opset: int
    precision: Literal["float32", "int8"] = "float32"
    quantised: list[str] = field(default_factory=list)
    weight_bits: int | None = None
    graphs: dict[str, GraphNote]
    config: ModelConfig


def write_note(folder: Path, note: ExportNote) -> None:
    """Writes the note into `folder`."""
    (folder / NOTE_FILE).write_text(json.dumps(dump(note), indent=1), encoding="utf-8")


def is_exported(path: Path) -> bool:
    """Whether `path` is a folder that `dagan export` wrote."""
    return (path / NOTE_FILE).is_file()


def read_note(folder: Path) -> ExportNote:
    """The note in `folder`. Raises InputError when it is missing, damaged or of another version."""
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
    """The graph's file, after comparing its bytes with the note. Raises InputError for a missing or changed file."""
    for name, digest in graph.files.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise InputError(f"{path} is missing: export the model again")
        if file_digest(path) != digest:
            raise InputError(f"{path} is damaged (its checksum differs from the one in {NOTE_FILE}): export the model again")
    return folder / next(iter(graph.files))


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
