"""Folders of exported graphs, made once: exporting takes seconds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock


@pytest.fixture(scope="session")
def onnx_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as ONNX graphs; beside it, as model.safetensors, the model. The processes of one test run share them."""
    from dagan.export.job import export_model
    from running_samples import save_tiny_model, tiny_model

    base = tmp_path_factory.getbasetemp()
    parent = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "exported"
    with FileLock(parent.with_suffix(".lock")):
        if not (parent / "tiny").exists():  # A folder is there whole or not at all.
            parent.mkdir(exist_ok=True)
            save_tiny_model(parent / "model.safetensors")
            export_model(tiny_model(), parent / "tiny")
    return parent / "tiny"


@contextmanager
def graphs_of_the_tiny_model(folder: Path) -> Iterator[None]:
    """Exports of the tiny model take the ONNX files of `onnx_folder` instead of tracing the model again."""
    from dagan.export import job

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "write_onnx", lambda graph, inputs, path: shutil.copy(folder / path.name, path))
        yield


@pytest.fixture
def known_graphs(onnx_folder: Path) -> Iterator[None]:
    """See `graphs_of_the_tiny_model`."""
    with graphs_of_the_tiny_model(onnx_folder):
        yield


@pytest.fixture(scope="session")
def openvino_folder(onnx_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as OpenVINO's graphs."""
    from dagan.export.job import ExportOptions, export_model
    from running_samples import tiny_model

    folder = tmp_path_factory.mktemp("exported") / "openvino"
    with graphs_of_the_tiny_model(onnx_folder):
        export_model(tiny_model(), folder, ExportOptions(kind="openvino"))
    return folder
