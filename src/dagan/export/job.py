"""The export job writes a model as a folder of graphs with its note. Every graph is compared with PyTorch before it counts.

For int8, convolutions are quantised after training, calibrated on clips. Only the generator is quantised. Measured on lite-256
(docs/export.md), its pictures change by 0.1/255 on average. An int8 keypoint detector would move keypoints by a quarter of a pixel on
average and by up to 2.6, which shows as jitter, and would be no faster than bfloat16. Sampling, softmax and everything with coordinates
are not quantised.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from dagan.checks import text_path
from dagan.engine.sessions import (
    NOTE_FILE,
    SUFFIXES,
    ExportNote,
    Format,
    GraphNote,
    file_digest,
    is_exported,
    open_session,
    openvino_core,
    require,
    write_note,
)
from dagan.errors import InputError
from dagan.export.graph_modules import ENCODER, GENERATOR, KEYPOINTS, Graph, check_inputs, example_inputs, graphs_of
from dagan.media.framing import to_square
from dagan.media.output import atomic_folder
from dagan.media.video import open_video
from dagan.models.dagan import DaGAN, fold
from dagan.progress import Progress, silent
from dagan.weights.files import weights_digest

QUANTISED = (GENERATOR,)
CALIBRATE = "calibrating"
MOST_CLIPS = 24
FRAMES_A_CLIP = 4
# A quantised graph may differ from float32 by this much on average.
LARGEST_MEAN = 1 / 255

# Processors without VNNI add two products of a byte and a weight in 16 bits, and cut off what does not fit. The sum 2 x 255 x 127 does not
# fit, and 2 x 255 x 64 does. Graphs with 7-bit weights are therefore right on every processor.
SAFE_BITS = 7
BITS = (SAFE_BITS, 8)

Sample = dict[str, Tensor]


def choose_clips(clips: Sequence[Path]) -> tuple[list[Path], Path]:
    """Returns clips to calibrate on, spread over all, and one more to check with. Raises InputError when there are fewer than two."""
    if len(clips) < 2:
        raise InputError(f"int8 needs at least 2 clips to calibrate and to check with: there {'is 1' if clips else 'are none'}")
    places = np.linspace(0, len(clips) - 1, min(len(clips), MOST_CLIPS + 1)).round().astype(int)
    *chosen, check = [clips[i] for i in places]
    return chosen, check


def driving_sample(clip: Path, graphs: dict[str, Graph], size: int) -> Sample:
    """Returns inputs of the generator: a clip's first frame, driven by frames spread over it. Raises InputError for unreadable clips."""
    with open_video(clip) as video:
        step = max(1, video.frame_count // FRAMES_A_CLIP)
        pictures = [to_square(frame.filled, size) for frame in islice(video.frames(step=step), FRAMES_A_CLIP + 1)]
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    source = {"source_image": images[:1], **graphs[ENCODER].run({"image": images[:1]})}
    return {**graphs[KEYPOINTS].run({"image": images[1:] if len(images) > 1 else images}), **source}


def samples_of(clips: Sequence[Path], graphs: dict[str, Graph], size: int, progress: Progress) -> Iterator[Sample]:
    """Yields the `driving_sample` of each clip, one at a time."""
    for i, clip in enumerate(clips):
        progress(CALIBRATE, i, len(clips))
        yield driving_sample(clip, graphs, size)
    progress(CALIBRATE, len(clips), len(clips))


def quantise(path: Path, inputs: Sequence[str], samples: Iterable[Sample], weight_bits: int = SAFE_BITS) -> None:
    """Replaces an ONNX file by one whose convolutions are int8, with weights quantised by output channel.

    `inputs` are the names of the graph's inputs. It is run on `samples` to find the ranges of its activations. `weight_bits` is 7 or 8.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        """Gives the samples as the library asks for them."""

        def __init__(self) -> None:
            self._samples = iter(samples)

        def get_next(self) -> dict[str, np.ndarray] | None:
            sample = next(self._samples, None)
            return None if sample is None else {name: sample[name].numpy() for name in inputs}

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # The library gives advice through the root logger.
    try:
        with TemporaryDirectory() as folder:
            prepared = Path(folder) / path.name
            quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(path),
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                reduce_range=weight_bits < 8,
            )
    finally:
        root.setLevel(level)


OPSET = 18  # This is the first set of operators whose sampling, in four dimensions, is PyTorch's.
WRITE = "exporting"
# A graph may differ from PyTorch by this much. Rounding alone differs far less, and a graph that computes something else far more.
_TOLERANCE = 5e-3
_NEEDED = ("onnx", "onnxscript")


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """How to export."""

    kind: Format = "onnx"
    """onnx (for onnxruntime, OpenVINO and TensorRT) or openvino (its own files)."""
    int8: bool = False
    """Whether what tolerates it is quantised (see `dagan.export.job`)."""
    calibration: tuple[Path, ...] = ()
    """Clips on which int8 is calibrated: videos of faces, framed as the model's training clips."""
    weight_bits: int = SAFE_BITS
    """The bits of int8's weights: 7 are right on every processor; 8 only on those that have VNNI, and a little more exact there."""
    overwrite: bool = False


def export_model(model: DaGAN, folder: Path, options: ExportOptions | None = None, progress: Progress = silent) -> ExportNote:
    """Writes the graphs of `model` and their note into `folder`, whole or not at all.

    Raises InputError when a library is missing, when `folder` exists (without overwrite, or with other files in it), and when a graph does
    not compute what PyTorch does.
    """
    options = options or ExportOptions()
    check_export(folder, options)
    config = model.config
    plain = fold(_on_cpu(model))
    graphs = graphs_of(plain)
    examples, checks = example_inputs(plain, graphs), check_inputs(plain, graphs)
    notes: dict[str, GraphNote] = {}
    with atomic_folder(folder, options.overwrite) as partial:
        for i, graph in enumerate(graphs):
            progress(WRITE, i, len(graphs))
            write_onnx(graph, examples[graph.name], partial / f"{graph.name}.onnx")
        progress(WRITE, len(graphs), len(graphs))
        if options.int8:
            checks |= _quantise(partial, graphs, options, config.image_size, progress)
        for graph in graphs:
            path = partial / f"{graph.name}.onnx"
            if options.kind == "openvino":
                path = _to_openvino(path)
            limits = (np.inf, LARGEST_MEAN) if options.int8 and graph.name in QUANTISED else (_TOLERANCE, _TOLERANCE)
            notes[graph.name] = _note(graph, checks[graph.name], path, options.kind, limits)
        note = ExportNote(
            kind=options.kind,
            name=config.name,
            image_size=config.image_size,
            keypoints=config.keypoints.count,
            has_depth=config.use_depth,
            depth_range=(config.depth.min_depth, config.depth.max_depth),
            detector=weights_digest(model.keypoint_detector, model.depth_network),
            weights=weights_digest(model),
            opset=OPSET,
            precision="int8" if options.int8 else "float32",
            quantised=list(QUANTISED) if options.int8 else [],
            weight_bits=options.weight_bits if options.int8 else None,
            graphs=notes,
            config=config,
        )
        write_note(partial, note)
    return note


def export_graphs(model: DaGAN, folder: Path) -> None:
    """Writes the graphs of `model` as ONNX in place of what `folder` holds. `open_engine` needs this for runtimes that run graphs."""
    export_model(model, folder, ExportOptions(overwrite=True))


def check_export(folder: Path, options: ExportOptions) -> None:
    """Raises InputError for what can be refused before any work."""
    if options.kind not in get_args(Format):
        raise InputError(f"format {options.kind!r} is unknown: use {' or '.join(get_args(Format))}")
    for name in _NEEDED:
        if find_spec(name) is None:
            raise InputError(f"exporting needs {name}: pip install 'dagan[export]'")
    require(_checker(options.kind))
    if options.weight_bits not in BITS:
        raise InputError(f"--weight-bits is {options.weight_bits}: must be 7, which is right on every processor, or 8")
    if options.int8:
        require("onnxruntime")
        choose_clips(options.calibration)
    elif options.calibration:
        raise InputError("clips to calibrate on are for int8: ask for it, or leave them out")
    if folder.is_dir() and any(folder.iterdir()):
        if not options.overwrite:
            raise InputError(f"{folder} exists already: choose another name, or replace it with --overwrite")
        suffixes = {suffix for group in SUFFIXES.values() for suffix in group} if is_exported(folder) else set()
        strange = sorted(path.name for path in folder.iterdir() if path.name != NOTE_FILE and path.suffix not in suffixes)
        if strange:
            raise InputError(f"{folder} holds {strange[0]}, which dagan export did not write: choose another folder")


def _checker(kind: str) -> str:
    return "onnxruntime" if kind == "onnx" else "openvino"


def _on_cpu(model: DaGAN) -> DaGAN:
    """Returns the model in float32 on the CPU. A model that is there is returned as it is."""
    first = next(model.parameters())
    if first.device.type == "cpu" and model.compute_dtype == torch.float32:
        return model
    copy = DaGAN(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.eval()


def _quantise(folder: Path, graphs: list[Graph], options: ExportOptions, size: int, progress: Progress) -> dict[str, dict[str, Tensor]]:
    """Quantises files in `folder` and returns the inputs with which to check them. Faces are needed, because blotches are out of range."""
    by_name = {graph.name: graph for graph in graphs}
    chosen, check = choose_clips(options.calibration)
    for name in QUANTISED:
        quantise(folder / f"{name}.onnx", by_name[name].inputs, samples_of(chosen, by_name, size, progress), options.weight_bits)
    return {name: driving_sample(check, by_name, size) for name in QUANTISED}


def _to_openvino(onnx: Path) -> Path:
    """Replaces an ONNX file by OpenVINO's files."""
    import openvino as ov

    path = onnx.with_suffix(SUFFIXES["openvino"][0])
    # The reader of ONNX files is used, and not `openvino.convert_model`, because that reports its use.
    with text_path(path.parent) as folder:
        ov.save_model(openvino_core().read_model(str(folder / onnx.name)), str(folder / path.name), compress_to_fp16=False)
    onnx.unlink()
    return path


def write_onnx(graph: Graph, inputs: dict[str, Tensor], path: Path) -> None:
    """Writes one ONNX file with its weights inside. The size of the batch is free."""
    free = [{0: "batch"} if name in graph.batched else None for name in graph.inputs]
    shapes = tuple(free) if graph.grouped is None else (*free[: graph.grouped], free[graph.grouped :])
    with _quietly(), torch.no_grad():
        torch.onnx.export(
            graph.module,
            graph.arguments(inputs),
            str(path),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=shapes,
            external_data=False,
            verbose=False,
        )


@contextmanager
def _quietly() -> Iterator[None]:
    """Hides the exporter's remarks, which concern only itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _note(graph: Graph, inputs: Mapping[str, Tensor], path: Path, kind: str, limits: tuple[float, float]) -> GraphNote:
    """Compares the file with PyTorch. Raises InputError where the largest or the mean difference exceeds `limits`."""
    wanted = graph.run(dict(inputs))
    found = open_session(path, _checker(kind)).run({name: tensor.numpy() for name, tensor in inputs.items()})
    gaps = [np.abs(found[name] - tensor.numpy()) for name, tensor in wanted.items()]
    largest, mean = max(float(gap.max()) for gap in gaps), max(float(gap.mean()) for gap in gaps)
    if not (largest <= limits[0] and mean <= limits[1]):  # This is also true for NaN.
        raise InputError(f"the exported {graph.name} differs from PyTorch by up to {largest:.2g}, {mean:.2g} on average: it is not written")

    def shapes(tensors: Mapping[str, Tensor], batched: tuple[str, ...]) -> dict[str, Any]:
        return {name: ["batch" if name in batched else tensor.shape[0], *tensor.shape[1:]] for name, tensor in tensors.items()}

    return GraphNote(
        files={part.name: file_digest(part) for part in (path.with_suffix(suffix) for suffix in SUFFIXES[kind])},
        inputs=shapes({name: inputs[name] for name in graph.inputs}, graph.batched),
        outputs=shapes(wanted, graph.outputs),
        difference=largest,
        mean_difference=mean,
    )
