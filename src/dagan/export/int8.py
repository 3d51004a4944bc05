"""Quantises convolutions to int8 after training, calibrated on clips.

Only the generator is quantised. Measured on lite-256 (docs/export.md), its pictures change by 0.1/255 on average. An int8 keypoint
detector would move keypoints by a quarter of a pixel on average and by up to 2.6, which shows as jitter, and would be no faster than
bfloat16. Sampling, softmax and everything with coordinates are not quantised.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from dagan.errors import InputError
from dagan.export.graph_modules import ENCODER, GENERATOR, KEYPOINTS, Graph
from dagan.media.framing import to_square
from dagan.media.video import open_video
from dagan.progress import Progress

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
