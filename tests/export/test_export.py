"""What is exported computes what PyTorch computes; folders are whole, described, and not replaced unasked."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from dagan.config import GeneratorConfig
from dagan.engine.sessions import open_session, read_note
from dagan.engine.torch import TorchEngine
from dagan.errors import InputError
from dagan.export import job
from dagan.export.graph_modules import GENERATOR, check_inputs, example_inputs, graphs_of
from dagan.export.job import ExportOptions, export_model, write_onnx
from dagan.models.generator import CrossModalAttention
from dagan.weights import fold
from running_samples import TINY, tiny_model


def test_the_note_describes_the_model_and_its_graphs(onnx_folder):
    note = read_note(onnx_folder)
    engine = TorchEngine(tiny_model())
    assert (note.name, note.image_size, note.keypoints, note.has_depth) == ("tiny-64", 64, 6, True)
    assert (note.config, note.detector, note.depth_range) == (TINY, engine.detector_digest, (0.1, 100.0))
    assert set(note.graphs) == {"encoder", "keypoints", "generator", "depth"}
    assert {p.name for p in onnx_folder.iterdir()} == {*(f"{name}.onnx" for name in note.graphs), "export.json"}
    for name, graph in note.graphs.items():
        assert 0 <= graph.difference < 1e-4
        model = onnx.load(onnx_folder / f"{name}.onnx")
        onnx.checker.check_model(model)
        assert [entry.version for entry in model.opset_import if not entry.domain] == [18]
        for told, wires in ((graph.inputs, model.graph.input), (graph.outputs, model.graph.output)):
            assert list(told) == [wire.name for wire in wires]
            for wire in wires:
                shape = [d.dim_value or "batch" for d in wire.type.tensor_type.shape.dim]
                assert shape == told[wire.name], wire.name
    assert note.graphs["generator"].inputs["source_image"] == [1, 3, 64, 64]
    assert note.graphs["generator"].inputs["value"] == ["batch", 6, 2]


def test_openvino_files_describe_themselves_too(openvino_folder):
    note = read_note(openvino_folder)
    assert (note.kind, set(note.graphs)) == ("openvino", {"encoder", "keypoints", "generator", "depth"})
    assert list(note.graphs["encoder"].files) == ["encoder.xml", "encoder.bin"]
    assert all(graph.difference < 1e-4 for graph in note.graphs.values())
    assert not list(openvino_folder.glob("*.onnx"))


@pytest.mark.parametrize("batch", [1, 3])
def test_graphs_take_any_batch(onnx_folder, batch):
    model = fold(tiny_model())
    graphs = graphs_of(model)
    inputs = example_inputs(model, graphs, seed=7, batch=batch)
    for graph in graphs:
        wanted = graph.run(inputs[graph.name])
        session = open_session(onnx_folder / f"{graph.name}.onnx", "onnxruntime")
        found = session.run({name: tensor.numpy() for name, tensor in inputs[graph.name].items()})
        for name, tensor in wanted.items():
            np.testing.assert_allclose(found[name], tensor.numpy(), rtol=1e-3, atol=1e-4)
            assert tensor.shape[0] == batch


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        # Spectral norms, instance norms, half a pixel's shift, depth not warped.
        replace(TINY, name="spade", align_corners=False, generator=GeneratorConfig(decoder="spade", width=8, max_width=16, downs=2)),
        # Two branches for keypoints, and a query at every scale.
        replace(
            TINY, name="plus", keypoints=replace(TINY.keypoints, geometry=TINY.keypoints.hourglass),
            generator=replace(TINY.generator, downs=3, attention="all", attention_keys=4),
        ),
        # No depth, so no attention and no query.
        replace(TINY, name="rgb", use_depth=False, generator=GeneratorConfig(width=8, max_width=16, downs=2, blocks=1)),
    ],
    ids=["spade", "plus", "rgb"],
)
def test_generators_of_other_families(tmp_path, config):
    model = tiny_model(config=config)
    for module in model.modules():
        if isinstance(module, CrossModalAttention):
            torch.nn.init.constant_(module.gamma, 0.7)  # at its start, zero, attention would not be tested
    model = fold(model)
    graphs = graphs_of(model)
    graph = next(g for g in graphs if g.name == GENERATOR)
    write_onnx(graph, example_inputs(model, graphs)[GENERATOR], tmp_path / "g.onnx")
    inputs = check_inputs(model, graphs)[GENERATOR]
    wanted = graph.run(inputs)["result"].numpy()
    for runtime in ("onnxruntime", "openvino"):
        found = open_session(tmp_path / "g.onnx", runtime).run({name: t.numpy() for name, t in inputs.items()})["result"]
        np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert wanted.std() > 1e-3


def test_a_graph_that_computes_something_else_is_not_written(onnx_folder, known_graphs, tmp_path):
    """Nothing is left behind either."""
    other = tiny_model(seed=3)  # not the one whose files are taken
    with pytest.raises(InputError, match=r"the exported encoder differs from PyTorch by up to .* it is not written"):
        export_model(other, tmp_path / "new" / "folder")
    assert not list(tmp_path.iterdir())


def test_existing_folders_are_kept(onnx_folder, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="exists already"):
        export_model(tiny_model(), onnx_folder)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_text("mine")
    with pytest.raises(InputError, match=r"holds me\.jpg, which dagan export did not write"):
        export_model(tiny_model(), tmp_path / "photos", ExportOptions(overwrite=True))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        export_model(tiny_model(), tmp_path / "file")
    monkeypatch.setattr(job, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs onnx: pip install 'dagan\[export\]'"):
        export_model(tiny_model(), tmp_path / "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "photos"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_text("{"), "is damaged"),
        (lambda path: path.write_text("[]"), "is damaged"),
        (lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99})), "has format 99"),
        (lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), "colour": 1})), "unknown key 'colour'"),
        (lambda path: path.unlink(), r"it has no export\.json"),
    ],
)
def test_damaged_notes(onnx_folder, tmp_path, damage, words):
    path = tmp_path / "export.json"
    path.write_bytes((onnx_folder / "export.json").read_bytes())
    damage(path)
    with pytest.raises(InputError, match=words):
        read_note(tmp_path)
