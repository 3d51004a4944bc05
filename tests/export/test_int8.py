"""Quantised generators: int8 in the file, close to float32 on faces like those calibrated on, refused where they are not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from dagan.engine.open import open_engine
from dagan.engine.sessions import read_note
from dagan.errors import InputError
from dagan.export import job
from dagan.export.graph_modules import GENERATOR, graphs_of
from dagan.export.job import FRAMES_A_CLIP, MOST_CLIPS, ExportOptions, choose_clips, driving_sample, export_model
from dagan.weights import fold
from exported_folders import graphs_of_the_tiny_model
from running_samples import moving_pictures, tiny_model, write_clip


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return tuple(write_clip(folder / f"{i}.mp4", moving_pictures(9, 72, 64, seed=i)) for i in range(3))


@pytest.fixture(scope="module")
def quantised(onnx_folder, clips, tmp_path_factory):
    """The tiny model, int8; without tracing it again."""
    folder = tmp_path_factory.mktemp("int8") / "tiny"
    with graphs_of_the_tiny_model(onnx_folder):
        export_model(tiny_model(), folder, ExportOptions(int8=True, calibration=clips))
    return folder


def test_the_generators_convolutions_are_int8(quantised):
    note = read_note(quantised)
    assert (note.precision, note.quantised) == ("int8", ["generator"])
    model = onnx.load(quantised / "generator.onnx")
    weights = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    makers = {output: node for node in model.graph.node for output in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) > 5
    for node in convolutions:
        source = makers[node.input[1]]
        assert source.op_type == "DequantizeLinear"
        assert weights[source.input[0]] == onnx.TensorProto.INT8
        scales = next(t for t in model.graph.initializer if t.name == source.input[1])
        assert list(scales.dims) == [node_channels(model, source.input[0])]  # one for each output channel
    for name in ("encoder", "keypoints", "depth"):
        assert not any(n.op_type == "DequantizeLinear" for n in onnx.load(quantised / f"{name}.onnx").graph.node)


def node_channels(model, name):
    return next(tensor.dims[0] for tensor in model.graph.initializer if tensor.name == name)


def saturates(weights: np.ndarray) -> bool:
    """Whether a processor without VNNI adds up wrong with these weights (int8, output channels first).

    It multiplies bytes and weights in pairs and adds each pair in 16 bits, cutting off what does not fit. Which weights meet is up to
    the library, so all neighbours along any axis are tried, under the inputs that are worst for them.
    """
    for axis in range(1, weights.ndim):
        lines = np.moveaxis(weights.astype(np.int32), axis, -1)
        for first, second in ((lines[..., :-1], lines[..., 1:]), (lines, lines)):
            for sign in (1, -1):
                inputs = [np.where(sign * w > 0, 255, 0) for w in (first, second)]
                exact = inputs[0] * first + inputs[1] * second
                if (exact != exact.clip(-(2**15), 2**15 - 1)).any():
                    return True
    return False


def quantised_weights(folder):
    model = onnx.load(folder / "generator.onnx")
    arrays = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8]
    found = [array for array in arrays if array.ndim == 4]
    assert len(found) > 5
    return found


def test_no_processor_adds_up_wrong(quantised):
    weights = quantised_weights(quantised)
    assert not any(saturates(array) for array in weights)
    assert max(int(np.abs(array.astype(int)).max()) for array in weights) > 60  # all of the 7 bits are used
    assert read_note(quantised).weight_bits == 7


def test_weights_of_eight_bits_would(onnx_folder, known_graphs, clips, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "LARGEST_MEAN", 1.0)  # on a processor without VNNI the check refuses them
    note = export_model(tiny_model(), tmp_path / "new", ExportOptions(int8=True, calibration=clips, weight_bits=8))
    assert note.weight_bits == 8
    assert any(saturates(array) for array in quantised_weights(tmp_path / "new"))
    with pytest.raises(InputError, match="--weight-bits is 6: must be 7"):
        export_model(tiny_model(), tmp_path / "other", ExportOptions(int8=True, calibration=clips, weight_bits=6))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_it_draws_what_float32_draws(quantised, onnx_folder, runtime):
    pictures = moving_pictures(4, seed=1)
    exact, rough = open_engine(onnx_folder, "onnxruntime"), open_engine(quantised, runtime, precision="float32")
    assert rough.precision == "int8 and float32"
    assert rough.detector_digest == exact.detector_digest
    keypoints = exact.keypoints(pictures)
    np.testing.assert_allclose(rough.keypoints(pictures).value, keypoints.value, atol=1e-4)  # not quantised
    results = [engine.render(engine.encode(pictures[0]), keypoints).astype(int) for engine in (exact, rough)]
    gap = np.abs(results[0] - results[1])
    assert 0 < gap.mean() < 2.5  # random weights are harder on it than trained ones
    assert results[0].std() > 10 * gap.std()


def test_what_does_not_survive_is_not_written(known_graphs, clips, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "LARGEST_MEAN", 1e-9)
    with pytest.raises(InputError, match="the exported generator differs from PyTorch"):
        export_model(tiny_model(), tmp_path / "new", ExportOptions(int8=True, calibration=clips))
    assert not list(tmp_path.iterdir())


def test_clips_are_spread_and_one_is_kept_to_check(tmp_path):
    paths = [tmp_path / f"{i}.mp4" for i in range(100)]
    chosen, check = choose_clips(paths)
    assert len(chosen) == MOST_CLIPS
    assert check not in chosen
    assert (chosen[0], check) == (paths[0], paths[99])
    assert choose_clips(paths[:2]) == ([paths[0]], paths[1])
    for few, words in ((paths[:1], "there is 1"), ([], "there are none")):
        with pytest.raises(InputError, match=words):
            export_model(tiny_model(), tmp_path / "new", ExportOptions(int8=True, calibration=tuple(few)))
    with pytest.raises(InputError, match="are for int8"):
        export_model(tiny_model(), tmp_path / "new", ExportOptions(calibration=tuple(paths)))


def test_samples_are_frames_over_the_whole_clip(clips):
    graphs = {graph.name: graph for graph in graphs_of(fold(tiny_model()))}
    sample = driving_sample(clips[0], graphs, 64)
    assert sample["value"].shape == (FRAMES_A_CLIP, 6, 2)
    assert sample["source_image"].shape == (1, 3, 64, 64)
    assert set(graphs[GENERATOR].inputs) <= set(sample)
    assert sample["value"].std(0).max() > 1e-3
    with pytest.raises(InputError, match="does not exist"):
        driving_sample(clips[0].with_name("none.mp4"), graphs, 64)
