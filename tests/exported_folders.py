"""Folders of exported graphs, made once: exporting takes seconds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def onnx_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as ONNX graphs; beside it, as model.safetensors, the model."""
    from dagan.export.job import export_model
    from running_samples import save_tiny_model, tiny_model

    parent = tmp_path_factory.mktemp("exported")
    save_tiny_model(parent / "model.safetensors")
    export_model(tiny_model(), parent / "tiny")
    return parent / "tiny"


@contextmanager
def _known_graphs(folder: Path) -> Iterator[None]:
    from dagan.export import job

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "write_onnx", lambda graph, inputs, path: shutil.copy(folder / path.name, path))
        yield


@pytest.fixture
def known_graphs(onnx_folder: Path) -> Iterator[None]:
    """Exports of the tiny model take the ONNX files of `onnx_folder` instead of tracing the model again."""
    with _known_graphs(onnx_folder):
        yield


@pytest.fixture(scope="session")
def openvino_folder(onnx_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as OpenVINO's graphs."""
    from dagan.export.job import ExportOptions, export_model
    from running_samples import tiny_model

    folder = tmp_path_factory.mktemp("exported") / "openvino"
    with _known_graphs(onnx_folder):
        export_model(tiny_model(), folder, ExportOptions(kind="openvino"))
    return folder
