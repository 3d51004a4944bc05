"""The naive way to animate, with which speed is compared. It runs in a process of its own. Models are opened by name here too.

The naive way is what the released demo does. It computes in float32, folds nothing, and takes one frame at a time. The generator's source
side is computed again for every frame, and attention goes through the full N x N map. Whole videos lie in memory: all frames are read
before the first is computed, and all are computed before the first is written. As in that demo, the source's depth and keypoints are found
once. The process of its own has the memory of a plain program, and not the one that a command has arranged for itself.
"""

from __future__ import annotations

import copy
import multiprocessing
import signal
from collections.abc import Iterable, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor

from dagan.bench.timing import timed
from dagan.config import PRESETS
from dagan.device import choose_device, choose_precision
from dagan.engine.note import is_exported, read_note
from dagan.errors import InputError
from dagan.media.framing import to_square
from dagan.models.dagan import DaGAN
from dagan.models.generator import CrossModalAttention
from dagan.models.keypoints import Keypoints
from dagan.motion.transfer import transfer
from dagan.weights import load
from dagan.weights.files import bundled, weights_digest


def open_model(name: str, device: str, precision: str) -> tuple[DaGAN, bool]:
    """Opens a model and says whether it is trained. A preset without weights is freshly initialised, the same each time.

    For an exported folder, it is the bundled model that the folder was made of, if it was one, or else a fresh one of its configuration.
    """
    config = PRESETS.get(name)
    if is_exported(Path(name)):
        note = read_note(Path(name))
        if note.name in bundled() and weights_digest(model := load(note.name, device, "float32")) == note.weights:
            return model, True
        config = note.config
    elif config is None or name in bundled():
        return load(name, device, precision), True
    target = choose_device(device)
    torch.manual_seed(0)
    model = DaGAN(config).eval()
    for attention in _attentions(model):
        torch.nn.init.constant_(attention.gamma, 0.5)  # At 0, where it starts, no difference would be seen.
    model.compute_dtype = choose_precision(precision, target)
    return model.to(target), False


def _attentions(model: DaGAN) -> list[CrossModalAttention]:
    return [module for module in model.modules() if isinstance(module, CrossModalAttention)]


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
        for attention in _attentions(self._model):
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
        from dagan.media.video import VideoWriter, open_video

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
    as in `open_model`. `pictures` are S x S x 3 uint8. The first is the source, and where there is no video, all of them drive. Raises
    InputError when the process ends early.
    """

    def __init__(self, name: str, device: str, precision: str, pictures: Sequence[np.ndarray]) -> None:
        context = multiprocessing.get_context("spawn")
        self._name = name
        self._connection, other = context.Pipe()
        arguments = (other, name, device, precision, list(pictures), torch.get_num_threads())
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._other = other

    def __enter__(self) -> Self:
        self._process.start()
        self._other.close()
        self._receive()
        return self

    def seconds(self, driving: Path | None, output: Path) -> float:
        """Returns the seconds of one run. A video is read, computed and written, or without a video the pictures are computed."""
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


def _serve(connection: Connection, name: str, device: str, precision: str, pictures: list[np.ndarray], threads: int) -> None:
    """Runs in the process: answers each request with seconds, until no more are made."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The command ends this process by making no more requests.
    torch.set_num_threads(threads)
    naive = Naive(open_model(name, device, precision)[0], pictures[0])
    connection.send(timed(partial(naive.frame, pictures[0])))
    with suppress(EOFError, OSError):  # No more requests are made.
        while True:
            driving, output = connection.recv()
            connection.send(timed(partial(naive.video, driving, output) if driving else partial(_pictures, naive, pictures)))


def _pictures(naive: Naive, pictures: list[np.ndarray]) -> None:
    for picture in pictures:
        naive.frame(picture)
