"""What every engine offers to the jobs, whichever runtime computes: PyTorch (`engine.torch`), or exported graphs (`export`).

Legend: N pictures, S side of the model's images, K keypoints. Pictures are uint8 S x S x 3 RGB.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dagan.errors import InputError
from dagan.models.keypoints import Keypoints
from dagan.motion.openings import FaceKeypoints


@dataclass(frozen=True)
class EncodedSource:
    """A source picture made ready. keypoints: of that picture, batch 1, float32, on the CPU. content: the engine's own affair."""

    keypoints: Keypoints
    content: Any


def finite_source(engine: Engine, picture: np.ndarray, places: np.ndarray | None = None) -> EncodedSource:
    """`engine.encode`. Raises InputError where keypoints come out that are no numbers: nothing could be drawn from them."""
    source = engine.encode(picture, places)
    if not (torch.isfinite(source.keypoints.value).all() and torch.isfinite(source.keypoints.jacobian).all()):
        raise InputError(
            f"model {engine.name!r} finds no finite keypoints in the source picture: its weights are damaged, or need --precision float32"
        )
    return source


class Engine(ABC):
    """A model behind plain arrays.

    name: of the model. size: side S of its pictures. keypoint_count: K. face: which keypoints stand on landmarks. has_depth:
    whether `disparity` works. depth_range: nearest and farthest depth. batch_size: how many pictures to hand over at once.
    workers: how many threads may compute at once with gain (see `on_workers`). device, precision: where and how it computes, in
    words.
    """

    name: str
    size: int
    keypoint_count: int
    face: FaceKeypoints
    has_depth: bool
    depth_range: tuple[float, float]
    batch_size: int
    workers: int = 1
    device: str
    precision: str

    @property
    @abstractmethod
    def detector_digest(self) -> str:
        """SHA-256 of what finds keypoints (keypoint detector and depth network): equal digests find equal keypoints."""

    @abstractmethod
    def encode(self, picture: np.ndarray, places: np.ndarray | None = None) -> EncodedSource:
        """What `render` needs of a source picture, computed once.

        places: L x 2 landmarks of that picture (see `FaceKeypoints.places`), which take the place of its first keypoints.
        """

    @abstractmethod
    def keypoints(self, pictures: Sequence[np.ndarray]) -> Keypoints:
        """Keypoints of N pictures, float32, on the CPU."""

    @abstractmethod
    def render(self, source: EncodedSource, keypoints: Keypoints) -> np.ndarray:
        """N x S x S x 3 uint8: the source in the pose of each of N keypoint sets."""

    @abstractmethod
    def disparity(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """N x S x S float32 in (0, 1), near = large. Raises InputError for a model without a depth network."""

    def stacked(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """N x S x S x 3 uint8, on the CPU. Raises InputError for pictures of another size or type."""
        for picture in pictures:
            if picture.shape != (self.size, self.size, 3) or picture.dtype != np.uint8:
                raise InputError(
                    f"a picture is {picture.dtype} {picture.shape}: model {self.name!r} takes uint8 {(self.size, self.size, 3)}"
                )
        return torch.from_numpy(np.stack(pictures))


def check_batch_size(batch_size: int | None) -> None:
    """Raises InputError for a batch size below 1; None leaves the choice to the engine."""
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch size is {batch_size}: must be at least 1")


def to_images(batch: Tensor) -> Tensor:
    """N x 3 x S x S float32 in [0, 1], channels last, from N x S x S x 3 uint8, on the same device."""
    return batch.permute(0, 3, 1, 2).float() / 255


def to_bytes(images: Tensor) -> Tensor:
    """N x S x S x 3 uint8 from N x 3 x S x S in [0, 1], rounded on the images' device: a quarter of the bytes to bring back."""
    return torch.add(0.5, images, alpha=255).clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
