"""Folders of exported graphs, made once: exporting takes seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dagan.config import GeneratorConfig
from dagan.export.job import ExportOptions, export_model
from running_samples import TINY, save_tiny_model, tiny_model

FLAT = replace(
    TINY, name="tiny-rgb", use_depth=False, generator=GeneratorConfig(decoder="residual", width=8, max_width=16, downs=2, blocks=1)
)


@pytest.fixture(scope="session")
def onnx_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as ONNX graphs; beside it, as model.safetensors, the model."""
    parent = tmp_path_factory.mktemp("exported")
    save_tiny_model(parent / "model.safetensors")
    export_model(tiny_model(), parent / "tiny")
    return parent / "tiny"


@pytest.fixture(scope="session")
def openvino_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model without depth as OpenVINO's graphs."""
    folder = tmp_path_factory.mktemp("exported") / "flat"
    export_model(tiny_model(config=FLAT), folder, ExportOptions(kind="openvino"))
    return folder
