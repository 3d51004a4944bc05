"""What every engine offers to jobs, whether PyTorch computes (`engine.torch`) or exported graphs do (`engine.graphs`).

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
    """A source picture made ready for `Engine.render`."""

    keypoints: Keypoints
    """The keypoints of the source picture, as a batch of one, in float32, on the CPU."""
    content: Any
    """Whatever else the engine needs for drawing; only the engine that made it can read it."""


def finite_source(engine: Engine, picture: np.ndarray, places: np.ndarray | None = None) -> EncodedSource:
    """Does what `engine.encode` does, and raises InputError where a keypoint is infinite or NaN, because nothing could be drawn from it."""
    source = engine.encode(picture, places)
    if not (torch.isfinite(source.keypoints.value).all() and torch.isfinite(source.keypoints.jacobian).all()):
        raise InputError(
            f"model {engine.name!r} finds no finite keypoints in the source picture: its weights are damaged, or need --precision float32"
        )
    return source


@dataclass(frozen=True)
class Drawing:
    """What an engine drew, and the motion that it drew, as float32 tensors on the engine's device."""

    images: Tensor
    """The results, N x 3 x S x S in [0, 1]."""
    deformation: Tensor
    """Where each place of a result looks in the source, N x h x w x 2, as (x, y) in [-1, 1]."""


class Engine(ABC):
    """A model behind plain arrays."""

    name: str
    """The model's name."""
    size: int
    """The side S of the pictures that the model takes and gives."""
    keypoint_count: int
    """The number K of the model's keypoints."""
    face: FaceKeypoints
    """Says which keypoints stand on landmarks of the face."""
    has_depth: bool
    """Whether the model has a depth network, so that `disparity` works."""
    align_corners: bool
    """Whether -1 and 1 in a deformation are the middles of the outer pixels (True) or their outer edges."""
    depth_range: tuple[float, float]
    """The nearest and the farthest depth that disparities stand for."""
    batch_size: int
    """How many pictures should be handed over in one call."""
    workers: int = 1
    """How many threads may compute at the same time with a gain (see `stream.on_workers`)."""
    device: str
    """Where the engine computes, in words."""
    precision: str
    """The type of numbers in which the engine computes, in words."""

    @property
    @abstractmethod
    def detector_digest(self) -> str:
        """The SHA-256 of the weights that find keypoints. Engines with equal digests find equal keypoints.

        These are the weights of the keypoint detector and of the depth network.
        """

    @abstractmethod
    def encode(self, picture: np.ndarray, places: np.ndarray | None = None) -> EncodedSource:
        """Computes once what `render` needs of a source picture.

        places: L x 2 landmarks of that picture (see `FaceKeypoints.places`). Where they are given, they replace the places of the
        model's first L keypoints, which are the explicit ones.
        """

    @abstractmethod
    def keypoints(self, pictures: Sequence[np.ndarray]) -> Keypoints:
        """Finds the keypoints of N pictures; they are float32 and on the CPU."""

    @abstractmethod
    def render(self, source: EncodedSource, keypoints: Keypoints) -> np.ndarray:
        """Draws the source in the pose of each of N sets of keypoints. The result is N x S x S x 3 uint8."""

    @abstractmethod
    def draw(self, source: EncodedSource, keypoints: Keypoints) -> Drawing:
        """Does what `render` does, and returns the results before they are rounded, with their motion."""

    @abstractmethod
    def disparity(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Estimates N x S x S float32 disparities in (0, 1); near is large. Raises InputError for a model without a depth network."""

    def stacked(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """Stacks pictures to N x S x S x 3 uint8 on the CPU. Raises InputError for pictures of another size or type."""
        for picture in pictures:
            if picture.shape != (self.size, self.size, 3) or picture.dtype != np.uint8:
                raise InputError(
                    f"a picture is {picture.dtype} {picture.shape}: model {self.name!r} takes uint8 {(self.size, self.size, 3)}"
                )
        return torch.from_numpy(np.stack(pictures))


def check_batch_size(batch_size: int | None) -> None:
    """Raises InputError for a batch size below 1. None is allowed: it leaves the choice to the engine."""
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch size is {batch_size}: must be at least 1")


def to_images(batch: Tensor) -> Tensor:
    """Turns N x S x S x 3 uint8 into N x 3 x S x S float32 in [0, 1], in channels last, on the same device."""
    return batch.permute(0, 3, 1, 2).float() / 255


def to_bytes(images: Tensor) -> Tensor:
    """Turns N x 3 x S x S in [0, 1] into N x S x S x 3 uint8.

    Numbers are rounded on the images' device, so that only a quarter of the bytes has to be copied back.
    """
    return torch.add(0.5, images, alpha=255).clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
