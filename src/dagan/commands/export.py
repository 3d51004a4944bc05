"""`dagan export`: runs the export job with a progress bar, and says what came of it."""

from __future__ import annotations

from pathlib import Path

from dagan.commands.progress import progress_bar
from dagan.export.job import ExportOptions, check_export, export_model
from dagan.export.note import ExportNote
from dagan.weights import load

__all__ = ["ExportOptions", "export_file"]


def export_file(model: str, folder: Path, options: ExportOptions) -> ExportNote:
    """Exports and prints one line for each graph. Raises InputError as `export_model` does."""
    check_export(folder, options)  # before the model, which may have to be fetched
    with progress_bar() as progress:
        note = export_model(load(model, "cpu", "float32"), folder, options, progress)
    print(f"{folder}: {note.name} as {note.kind}, {note.precision}")
    for name, graph in note.graphs.items():
        print(f"  {next(iter(graph.files))}: {name}, differs from PyTorch by at most {graph.difference:.1e}")
    return note
