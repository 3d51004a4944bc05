"""What `dagan evaluate depth` measures: a depth network and, where it is there, the motion and camera network trained with it.

Beside the networks stands what they are compared with, and what one frame shows of both.

Legend: N frames, S side of the networks' pictures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dagan.checks import parse
from dagan.config import DepthConfig
from dagan.device import choose_device
from dagan.errors import InputError
from dagan.evaluate.metrics import Image
from dagan.geometry import axis_angle_to_rotation, resize
from dagan.models.depth import DepthNetwork, EgomotionConfig, EgomotionNetwork, disparity_to_depth
from dagan.weights import load
from dagan.weights.files import load_weights, read_tensors

DEFAULT_SIZE = 256
CHECKPOINT = "last.ckpt"  # Training leaves this file beside the weights.


class GroundTruth(Protocol):
    """What is known of a synthetic clip: for each frame depth, face and the head's rotation; for the clip the camera (see `ClipTruth`)."""

    @property
    def depth(self) -> NDArray[np.float32]: ...
    @property
    def face(self) -> NDArray[np.bool_]: ...
    @property
    def rotation(self) -> NDArray[np.float32]: ...
    @property
    def focal(self) -> tuple[float, float]: ...
    @property
    def principal(self) -> tuple[float, float]: ...


@dataclass(frozen=True)
class ShownFrame:
    """One frame for the report's pictures, with the network's disparity and depth.

    Focal length and principal point are in pixels; on real clips they are assumed, and the truth and the face's pixels are None.
    """

    image: Image
    disparity: NDArray[np.float32]
    depth: NDArray[np.float32]
    focal: tuple[float, float]
    principal: tuple[float, float]
    truth: NDArray[np.float32] | None = None
    face: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class CameraMotion:
    """What moved between two frames, and the camera, as the network sees them."""

    rotation: NDArray[np.float64]
    """The 3 x 3 rotation in camera coordinates."""
    focal: tuple[float, float]
    """The focal lengths in image widths (x) and image heights (y)."""


@dataclass(frozen=True)
class DepthNetworks:
    """The networks that are measured."""

    name: str
    """The name of the weights."""
    size: int
    """The side S to which pictures are resized."""
    depth: DepthNetwork
    """The depth network."""
    egomotion: EgomotionNetwork | None = None
    """The motion and camera network; None where its weights are not there."""

    @property
    def device(self) -> torch.device:
        """Where the networks compute."""
        return next(self.depth.parameters()).device

    @torch.inference_mode()
    def disparity(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns N x H x W disparities in (0, 1), at the size of the images, N x H x W x 3. Near is large."""
        return resize(self.depth(self._pictures(images))[0], (images.shape[1], images.shape[2]))[:, 0].float().cpu().numpy()

    def metric(self, disparity: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the depth that a disparity stands for, in the network's own unit."""
        config = self.depth.config
        return disparity_to_depth(torch.from_numpy(disparity), config.min_depth, config.max_depth).numpy()

    @torch.inference_mode()
    def motions(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> list[CameraMotion]:
        """Returns what moved between N pairs of frames in temporal order. It needs `egomotion`."""
        assert self.egomotion is not None
        seen = self.egomotion(self._pictures(first), self._pictures(second))
        rotations = axis_angle_to_rotation(seen.rotation).double().cpu().numpy()
        return [CameraMotion(r, (float(fx), float(fy))) for r, (fx, fy) in zip(rotations, seen.focal.tolist(), strict=True)]

    def _pictures(self, images: NDArray[np.uint8]) -> Tensor:
        batch = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float() / 255
        return resize(batch, (self.size, self.size))


def open_networks(weights: str, egomotion: Path | None = None, size: int | None = None, device: str = "auto") -> DepthNetworks:
    """Finds and loads what is to be measured.

    `weights` is a depth file of stage 1 (depth.safetensors), a checkpoint of stage 1 (.ckpt), or anything that `dagan.load` takes.
    `egomotion` is a checkpoint of stage 1; without it, the one beside a depth file is used. `size` is the side of the networks' pictures;
    without it, it is the one that they were trained at. Raises InputError for files that are missing or of another kind, and for models
    without a depth network.
    """
    target = choose_device(device)
    path = Path(weights)
    if path.suffix == ".ckpt":
        networks = _from_checkpoint(path)
    else:
        networks = _from_depth_file(path) if path.is_file() and _is_depth_file(path) else _from_model(weights)
        beside = path.with_name(CHECKPOINT)
        if egomotion is None and path.name == "depth.safetensors" and beside.is_file():
            egomotion = beside
    if egomotion is not None:
        networks = replace(networks, egomotion=_from_checkpoint(egomotion).egomotion)
    if size is not None:
        if size <= 0 or size % 32:
            raise InputError(f"--size is {size}: must be a positive multiple of 32")
        networks = replace(networks, size=size)
    networks.depth.to(target).eval()
    if networks.egomotion is not None:
        networks.egomotion.to(target).eval()
    return networks


def _is_depth_file(path: Path) -> bool:
    return path.suffix == ".safetensors" and "dagan_depth" in read_tensors(path)[1]


def _from_depth_file(path: Path) -> DepthNetworks:
    tensors, metadata = read_tensors(path)
    note = json.loads(metadata["dagan_depth"])
    network = DepthNetwork(parse(DepthConfig, note["config"], str(path)))
    load_weights(network, tensors, str(path))
    return DepthNetworks(str(path), _trained_size(note.get("card", {}).get("recipe", {})), network)


def _from_model(name: str) -> DepthNetworks:
    model = load(name, "cpu", "float32")
    if model.depth_network is None:
        raise InputError(f"model {name!r} has no depth network: give one whose name does not end in -rgb, or a depth file")
    return DepthNetworks(name, model.config.image_size, model.depth_network)


def _from_checkpoint(path: Path) -> DepthNetworks:
    """Returns the averaged networks of a stage 1 checkpoint."""
    if not path.is_file():
        raise InputError(f"checkpoint {path} does not exist: give the last.ckpt of a run of `dagan train depth`")
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
        stage, recipe, tensors = payload["stage"], payload["recipe"], payload["averaged"]
    except Exception as error:
        kind = type(error).__name__
        raise InputError(f"{path} cannot be read as a checkpoint ({kind}): give the last.ckpt of `dagan train depth`") from None
    if stage != "depth":
        raise InputError(f"{path} is of stage {stage!r}: motion and camera are in checkpoints of `dagan train depth`")
    depth = DepthNetwork(parse(DepthConfig, recipe["model"], str(path)))
    egomotion = EgomotionNetwork(parse(EgomotionConfig, recipe["egomotion"], str(path)))
    load_weights(depth, _under(tensors, "module.depth_network."), str(path))
    load_weights(egomotion, _under(tensors, "module.egomotion."), str(path))
    return DepthNetworks(str(path), _trained_size(recipe), depth, egomotion)


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _trained_size(recipe: Mapping[str, Any]) -> int:
    return int(recipe.get("data", {}).get("size") or DEFAULT_SIZE)
