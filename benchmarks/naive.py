"""A model beside the naive way to compute the same, in turn: frames a second of both, and how many times as many the fast way makes.

The naive way is what the released demo does. It computes in float32, folds nothing, and takes one frame at a time. The generator's source
side is computed again for every frame, and attention goes through the full N x N map. Whole videos lie in memory: all frames are read
before the first is computed, and all are computed before the first is written. As in that demo, the source's depth and keypoints are found
once. It runs in a process of its own, which has the memory of a plain program, and not the one that commands arrange for themselves.

Run: python benchmarks/naive.py [--model lite-256] [--naive paper-256 ...] [--frames 100] [--naive-frames 4] [--rounds 3] [--precision auto]
(without --naive the model's own naive way; presets without weights come freshly initialised)
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import signal
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from fractions import Fraction
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor

from dagan.bench.job import animate_clip, attentions, open_model
from dagan.bench.timing import swaying, timed, write_clip
from dagan.engine.open import open_engine
from dagan.engine.sessions import is_exported
from dagan.errors import InputError
from dagan.media.framing import to_square
from dagan.media.video import VideoWriter, open_video
from dagan.models.dagan import DaGAN
from dagan.models.generator import CrossModalAttention
from dagan.models.keypoints import Keypoints
from dagan.motion.transfer import transfer
from dagan.processes import keep_freed_memory


class NaiveAttention(CrossModalAttention):
    """The same attention, computed by its formula."""

    def forward(self, query: Tensor, features: Tensor) -> Tensor:
        """See CrossModalAttention."""
        key, value = self.asked(features)
        weights = torch.softmax(query.flatten(2).transpose(1, 2) @ key.flatten(2), dim=-1)  # B x N x M
        return self.gamma * (value.flatten(2) @ weights.transpose(1, 2)).unflatten(2, (query.shape[-2], query.shape[-1]))


class Naive:
    """Drives the picture `source` (S x S x 3 uint8) frame by frame, relative to the first. `model` stays as it is."""

    def __init__(self, model: DaGAN, source: np.ndarray) -> None:
        self._model = copy.deepcopy(model).eval()
        self._model.compute_dtype = torch.float32
        for attention in attentions(self._model):
            attention.__class__ = NaiveAttention  # No tensor changes, only what is computed from them.
        self.size = model.config.image_size
        self._device = next(model.parameters()).device
        self._image = self._tensor(source)
        self._encoded = self._model.encode_source(self._image)
        self._first: Keypoints | None = None

    @torch.inference_mode()
    def frame(self, picture: np.ndarray) -> np.ndarray:
        """Draws the source in the pose of a picture, S x S x 3 float32 in [0, 1]."""
        driving = self._model.keypoints(self._tensor(picture))
        self._first = driving if self._first is None else self._first
        moved = transfer(self._encoded.keypoints, driving, self._first, relative=True, adapt_scale=True)
        again = self._model._encode(self._image, self._encoded.disparity, self._encoded.keypoints)
        return self._model._drive(again, moved).image[0].permute(1, 2, 0).cpu().numpy()

    def video(self, driving: Path, output: Path) -> int:
        """Reads, computes and writes a whole video. Returns the number of frames."""
        with open_video(driving) as reader:
            rate = reader.rate
            frames = [to_square(frame.filled, self.size).astype(np.float32) / 255 for frame in reader]
        results = [self.frame((frame * 255).astype(np.uint8)) for frame in frames]
        with VideoWriter(output, self.size, self.size, rate=rate, overwrite=True) as writer:
            for i, result in enumerate(_bytes(results)):
                writer.write(result, Fraction(i) / rate)
        return len(results)

    def _tensor(self, picture: np.ndarray) -> Tensor:
        return torch.from_numpy(picture.copy()).to(self._device).permute(2, 0, 1)[None].float() / 255


def _bytes(pictures: Iterable[np.ndarray]) -> list[np.ndarray]:
    return [np.rint(picture.clip(0, 1) * 255).astype(np.uint8) for picture in pictures]


class Rival:
    """Times the naive way of a model on request.

    It is a context manager: within its block the process is there, and the model is open and warm. `name`, `device` and `precision` are
    as in `open_model`. `source` is S x S x 3 uint8. Raises InputError when the process ends early.
    """

    def __init__(self, name: str, device: str, precision: str, source: np.ndarray) -> None:
        context = multiprocessing.get_context("spawn")
        self._name = name
        self._connection, other = context.Pipe()
        arguments = (other, name, device, precision, source, torch.get_num_threads())
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._other = other

    def __enter__(self) -> Self:
        self._process.start()
        self._other.close()
        self._receive()
        return self

    def seconds(self, driving: Path, output: Path) -> float:
        """Returns the seconds that reading, computing and writing a whole video takes."""
        with suppress(OSError):  # If the process has ended, receiving its answer fails as well.
            self._connection.send((driving, output))
        return self._receive()

    def _receive(self) -> float:
        try:
            return float(self._connection.recv())
        except (EOFError, OSError):
            raise InputError(f"the naive way of {self._name} could not be measured: its process ended") from None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._connection.close()
        if error is not None:
            self._process.kill()  # It is in the middle of a video for which nobody waits.
        self._process.join()


def _serve(connection: Connection, name: str, device: str, precision: str, source: np.ndarray, threads: int) -> None:
    """Runs in the process: answers each request with seconds, until no more are made."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The script ends this process by making no more requests.
    torch.set_num_threads(threads)
    naive = Naive(open_model(name, device, precision)[0], source)
    connection.send(timed(partial(naive.frame, source)))
    with suppress(EOFError, OSError):  # No more requests are made.
        while True:
            driving, output = connection.recv()
            connection.send(timed(partial(naive.video, driving, output)))


def main(words: list[str] | None = None) -> None:
    """Prints a line for each naive model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lite-256")
    parser.add_argument("--naive", nargs="*", default=[])
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--naive-frames", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch-size", type=int)
    options = parser.parse_args(words)
    keep_freed_memory()
    model, _ = open_model(options.model, options.device, options.precision)
    exported = is_exported(Path(options.model))
    if exported:
        engine = open_engine(Path(options.model), None, options.batch_size, options.device, options.precision)
    else:
        engine = open_engine(model, "torch", options.batch_size)
    pictures = list(islice(swaying(engine.size), engine.batch_size))
    engine.render(engine.encode(pictures[0]), engine.keypoints(pictures))  # This warms the engine up.
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        clip = write_clip(folder / "clip.mp4", options.frames)
        short = write_clip(folder / "short.mp4", options.naive_frames)
        fast = partial(animate_clip, engine, pictures[0], clip, folder / "fast.mp4", False)
        for name in options.naive or [options.model]:
            with Rival(name, options.device, options.precision, pictures[0]) as rival:
                # Both ways run in turn, so that whatever else the machine does affects both.
                rounds = [
                    (options.naive_frames / rival.seconds(short, folder / "naive.mp4"), options.frames / timed(fast))
                    for _ in range(options.rounds)
                ]
            ratios = [quick / plain for plain, quick in rounds]
            plain, quick = (median(column) for column in zip(*rounds, strict=True))
            each = ", ".join(f"{ratio:.1f}" for ratio in ratios)
            print(f"naive {name}: {plain:.2f} frames/s; {options.model}: {quick:.1f}; {median(ratios):.1f} times ({each})", flush=True)


if __name__ == "__main__":
    main()
