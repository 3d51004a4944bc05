"""The objective of training stage 1: depth, motion and camera from three frames of one video (METHOD section 2).

One module, one forward per step, so that it can be wrapped for data-parallel training as a whole.
Legend: B batch, H W image. Geometry and losses run in float32 whatever autocast says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dagan.config import STRICT
from dagan.errors import InputError
from dagan.geometry import coordinate_grid, resize
from dagan.geometry.camera import back_project, intrinsics, invert_intrinsics, project, rigid_motion
from dagan.losses.photometric import edge_aware_smoothness, masked_photometric, minimum_error, warp
from dagan.models.depth import DepthNetwork, disparity_to_depth
from dagan.models.egomotion import Egomotion, EgomotionNetwork
from dagan.train.alignment import align

# Standard deviation of the bulge that training starts from, in coordinates of [-1, 1]: about a head's.
BULGE_WIDTH = 0.45


@dataclass(frozen=True, kw_only=True)
class DepthLossConfig:
    """Terms of the objective; a weight of 0 leaves its term out.

    scales: how many of the four disparities are trained, full size first.
    smoothness: weight at scale 0; halved with every further scale.
    automask: ignore pixels that the unwarped frames explain as well.
    pivot: turn the head about the point in the middle of the frame at the mean depth there, and measure translation in
        that depth. A turn then leaves the head in place and shows as relief alone, and the loss does not depend on the depth's
        scale. False: turn about the camera's centre, where small turns and shifts look alike and only shifts show depth.
    intrinsics_prior: weight of the squared logarithm of focal length over its starting value.
    flip_consistency: weight of |disparity - unflipped disparity of the mirrored frame|.
    level: weight of the squared distance of the mean disparity in the middle of the frame from 0.5 (scale is free otherwise).
    start_share: share of training over which the start gives way to the photometric error. At the start the disparity is drawn
        to a bulge of relative height `start_relief` in the middle of the frame, and the motion to what aligning the frames on
        that bulge gives (`train.alignment`), by the weight `start_alignment`. Without it, small turns explain a hollow face as
        well as a face, and depth and turns wait for each other: before a plane turns teach nothing, without turns depth learns
        nothing. A share or relief of 0 leaves the start out.
    """

    __pydantic_config__ = STRICT
    scales: int = 4
    smoothness: float = 1e-3
    automask: bool = True
    pivot: bool = True
    intrinsics_prior: float = 0.01
    flip_consistency: float = 0.0
    level: float = 0.01
    start_share: float = 0.2
    start_relief: float = 0.2
    start_alignment: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.scales <= 4:
            raise InputError(f"depth loss scales is {self.scales}: must be 1 to 4")
        for name in ("smoothness", "intrinsics_prior", "flip_consistency", "level", "start_share", "start_relief", "start_alignment"):
            if getattr(self, name) < 0:
                raise InputError(f"depth loss {name} is {getattr(self, name)}: must not be negative")


@dataclass(frozen=True)
class DepthBatch:
    """Three frames of one video in temporal order, B x 3 x H x W in [0, 1].

    previous, frame, next: as filmed; the loss compares these. *_in: what the networks see, colour-jittered (one draw for the
    three frames of a sample); the same tensors where there is no jitter. Flips are applied to all six alike.
    """

    previous: Tensor
    frame: Tensor
    next: Tensor
    previous_in: Tensor
    frame_in: Tensor
    next_in: Tensor


@dataclass(frozen=True)
class DepthPreviews:
    """Detached pictures of one step: frame and warped (B 3 H W), disparity (B 1 H W), kept (B 1 H W bool, not auto-masked)."""

    frame: Tensor
    warped: Tensor
    disparity: Tensor
    kept: Tensor


class DepthObjective(nn.Module):
    """Holds both networks of stage 1 and turns a batch into losses.

    forward returns (losses, previews): losses["total"] is the one to differentiate; the other losses are its weighted terms,
    detached, and "monitor/..." figures to watch:
    explained: share of the still error that warping removes, 0 means nothing is learnt; masked: share of auto-masked pixels;
    relief: spread of inverse depth in the middle of the frame over its mean, towards 0 means depth collapses to a plane;
    focal: in image widths; rotation: degrees; translation: relative to the head's distance with pivot, else in depth units.
    """

    def __init__(self, depth_network: DepthNetwork, egomotion: EgomotionNetwork, config: DepthLossConfig | None = None) -> None:
        super().__init__()
        self.depth_network = depth_network
        self.egomotion = egomotion
        self.config = config or DepthLossConfig()

    def forward(self, batch: DepthBatch, progress: float = 1.0) -> tuple[dict[str, Tensor], DepthPreviews]:
        """progress: share of training done, in [0, 1]; only what `start_share` governs depends on it."""
        mirrored = self.config.flip_consistency > 0
        seen = torch.cat([batch.frame_in, batch.frame_in.flip(-1)]) if mirrored else batch.frame_in
        disparities = self.depth_network(seen)
        # Both pairs in one pass: batch statistics see the same data, and the network runs once a step.
        pairs = self.egomotion(torch.cat([batch.previous_in, batch.frame_in]), torch.cat([batch.frame_in, batch.next_in]))
        with torch.autocast(batch.frame.device.type, enabled=False):
            return self._losses(batch, [d.float() for d in disparities], pairs, progress)

    def _losses(
        self, batch: DepthBatch, disparities: list[Tensor], pairs: Egomotion, progress: float
    ) -> tuple[dict[str, Tensor], DepthPreviews]:
        config = self.config
        count = len(batch.frame)
        size = (batch.frame.shape[-2], batch.frame.shape[-1])
        flip_error = _mirror_difference(disparities, count) if config.flip_consistency else None
        disparities = [d[:count] for d in disparities]
        depths = [self._depth(resize(d, size)) for d in disparities[: config.scales]]
        pull = max(0.0, 1 - progress / config.start_share) if config.start_share and config.start_relief else 0.0
        # One camera filmed the three frames.
        focal, principal = (x.float().unflatten(0, (2, count)).mean(0) for x in (pairs.focal, pairs.principal))
        matrix = intrinsics(focal, principal, size)
        inverse = invert_intrinsics(matrix)
        distance = _middle(depths[0]).mean((1, 2, 3))
        motions = self._motions(pairs, distance)
        log_scale = None if pairs.log_scale is None else pairs.log_scale.float().unflatten(0, (2, count)).mean(0)

        sources = [batch.previous.float(), batch.next.float()]
        frame = batch.frame.float()
        still_error = minimum_error(sources, frame)
        photometric = frame.new_zeros(())
        smoothness = frame.new_zeros(())
        for scale, depth in enumerate(depths):
            points = back_project(depth, inverse)
            warped = [warp(source, project(points, matrix, motion)) for source, motion in zip(sources, motions, strict=True)]
            error = minimum_error(warped, frame)
            result = masked_photometric(error, still_error if config.automask else None, log_scale)
            photometric = photometric + result.loss / config.scales
            disparity = disparities[scale]
            guide = resize(frame, (disparity.shape[-2], disparity.shape[-1]))
            smoothness = smoothness + edge_aware_smoothness(disparity, guide) / (2**scale * config.scales)
            if scale == 0:
                previews = DepthPreviews(frame, warped[1].detach(), disparities[0].detach(), result.kept)
                explained = 1 - torch.minimum(error, still_error).mean() / still_error.mean().clamp(min=1e-6)

        terms = {"photometric": (1 - pull) * photometric, "smoothness": config.smoothness * smoothness}
        terms["level"] = config.level * (_middle(disparities[0]).mean((1, 2, 3)) - 0.5).square().mean()
        if self.egomotion.config.learn_camera:
            terms["intrinsics"] = config.intrinsics_prior * torch.log(focal / self.egomotion.config.focal).square().mean()
        if flip_error is not None:
            terms["flip"] = config.flip_consistency * flip_error
        if pull > 0:
            bulge = start_bulge(frame, config.start_relief)
            terms["bulge"] = pull * torch.stack([bulge_difference(d, bulge) for d in disparities[: config.scales]]).mean()
            terms["alignment"] = pull * config.start_alignment * self._alignment(batch, pairs, bulge, distance)
        # Data-parallel training wants every parameter in the graph, those of untrained scales too.
        untrained = sum((0 * d.mean() for d in disparities[config.scales :]), frame.new_zeros(()))
        losses = {"total": sum(terms.values(), untrained)} | {name: term.detach() for name, term in terms.items()}
        relief = _middle(1 / depths[0].detach())
        monitors = {
            "explained": explained,
            "masked": 1 - previews.kept.float().mean(),
            "relief": (relief.std((1, 2, 3)) / relief.mean((1, 2, 3))).mean(),
            "focal": focal.mean(),
            "rotation": torch.linalg.vector_norm(pairs.rotation, dim=1).mean() * (180 / math.pi),
            "translation": torch.linalg.vector_norm(pairs.translation, dim=1).mean(),
        }
        return losses | {f"monitor/{name}": value.detach() for name, value in monitors.items()}, previews

    def _depth(self, disparity: Tensor) -> Tensor:
        config = self.depth_network.config
        return disparity_to_depth(disparity, config.min_depth, config.max_depth)

    def _alignment(self, batch: DepthBatch, pairs: Egomotion, bulge: Tensor, distance: Tensor) -> Tensor:
        """Mean |difference| of rotations and of relative translations from those that align the frames on the bulge."""
        first, second = torch.cat([batch.previous, batch.frame]), torch.cat([batch.frame, batch.next])
        rotation, translation = align(first, second, bulge, self.egomotion.config.focal)
        if not self.config.pivot:
            scale = distance.detach().repeat(2)[:, None]
            pivot = translation.new_tensor([0.0, 0.0, 1.0]).expand_as(translation)
            translation = scale * rigid_motion(rotation, translation, pivot=pivot)[:, :3, 3]
        return F.l1_loss(pairs.rotation, rotation) + F.l1_loss(pairs.translation, translation)

    def _motions(self, pairs: Egomotion, distance: Tensor) -> tuple[Tensor, Tensor]:
        """Motions from the frame to the previous and to the next one; distance: B, the head's depth (used with pivot)."""
        count = len(distance)
        pivot = None
        if self.config.pivot:
            # Not detached: scaling all depths then leaves every projection, and so the loss, exactly as it was.
            pivot = distance[:, None] * distance.new_tensor([0.0, 0.0, 1.0])
            pairs = replace(pairs, translation=pairs.translation * distance.repeat(2)[:, None])
        # The first motion was found from the previous frame to this one, in temporal order: the way back is its inverse.
        back = rigid_motion(pairs.rotation[:count], pairs.translation[:count], invert=True, pivot=pivot)
        forth = rigid_motion(pairs.rotation[count:], pairs.translation[count:], pivot=pivot)
        return back, forth


def start_bulge(frame: Tensor, height: float) -> Tensor:
    """1 x 1 x H x W inverse depth for frames B x 3 x H x W: 1 plus a Gaussian of `height` in the middle of the frame."""
    grid = coordinate_grid(frame.shape[-2], frame.shape[-1], device=frame.device)
    return 1 + height * torch.exp(-grid.square().sum(-1) / (2 * BULGE_WIDTH**2))[None, None]


def bulge_difference(disparity: Tensor, bulge: Tensor) -> Tensor:
    """Scalar: mean |disparity (B 1 H W) - bulge|, both relative to their means."""
    small = resize(bulge, (disparity.shape[-2], disparity.shape[-1]))
    return (disparity / disparity.mean((2, 3), keepdim=True) - small / small.mean()).abs().mean()


def _middle(maps: Tensor) -> Tensor:
    """The middle half of B x C x H x W maps in height and width: where the face is."""
    height, width = maps.shape[-2:]
    return maps[..., height // 4 : height - height // 4, width // 4 : width - width // 4]


def _mirror_difference(disparities: list[Tensor], count: int) -> Tensor:
    """Mean |difference| between the first `count` maps of scale 0 and the mirrored maps of the mirrored frames after them."""
    return F.l1_loss(disparities[0][:count], disparities[0][count:].flip(-1))
