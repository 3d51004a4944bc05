"""`dagan export`: runs the export job with a progress bar, and says what came of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dagan.commands.progress import progress_bar
from dagan.data.clips import find_clips
from dagan.engine.note import ExportNote
from dagan.errors import InputError
from dagan.export.job import ExportOptions, check_export, export_model
from dagan.weights import load

__all__ = ["ExportOptions", "export_file"]


def export_file(model: str, folder: Path, options: ExportOptions, calibration: Path | None = None) -> ExportNote:
    """Exports and prints one line for each graph. calibration: folder of clips, for int8. Raises InputError as `export_model` does."""
    if options.int8 and calibration is None:
        raise InputError("--int8 needs --calibration: a folder of clips of faces, framed as the model's training clips")
    if calibration is not None:
        options = replace(options, calibration=tuple(clip.path for clip in find_clips(calibration)))
    check_export(folder, options)  # before the model, which may have to be fetched
    with progress_bar() as progress:
        note = export_model(load(model, "cpu", "float32"), folder, options, progress)
    print(f"{folder}: {note.name} as {note.kind}")
    for name, graph in note.graphs.items():
        precision = note.precision if name in note.quantised else "float32"
        differences = f"{graph.difference:.1e} at most, {graph.mean_difference:.1e} on average"
        print(f"  {next(iter(graph.files))}: {precision}, differs from PyTorch by {differences}")
    return note
