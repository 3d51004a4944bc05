"""The objective of stage 1: it learns depth, motion and camera from three frames of one video (docs/method.md#stage-1).

It is one module with one forward pass per step, so that it can be wrapped for data-parallel training as a whole. Geometry and losses
run in float32, whatever autocast says.

Legend: B batch, H W image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dagan.geometry import axis_angle_to_rotation, back_project, intrinsics, invert_intrinsics, invert_motion, project, resize, rigid_motion
from dagan.losses.depth import (
    bulge_difference,
    edge_aware_smoothness,
    label_difference,
    masked_photometric,
    match_shapes,
    minimum_error,
    start_bulge,
    warp,
)
from dagan.models.depth import DepthNetwork, Egomotion, EgomotionNetwork, disparity_to_depth
from dagan.train.alignment import align, head_level
from dagan.train.recipe import DepthLossConfig


@dataclass(frozen=True)
class DepthBatch:
    """Three frames of one video in temporal order, B x 3 x H x W in [0, 1]. Flips change all six tensors alike."""

    previous: Tensor
    """The frame before, as filmed. The loss compares frames as filmed."""
    frame: Tensor
    """The frame in the middle, as filmed."""
    next: Tensor
    """The frame after, as filmed."""
    previous_in: Tensor
    """The frame before as networks see it: its colours are jittered, alike for the three frames of a sample."""
    frame_in: Tensor
    """The frame in the middle as networks see it. Without jitter it is `frame`."""
    next_in: Tensor
    """The frame after as networks see it."""


@dataclass(frozen=True)
class LabelledBatch:
    """Frames whose depth was found from many frames of their clips (see `train.labels`)."""

    frame: Tensor
    """What the network sees, B x 3 x H x W."""
    inverse: Tensor
    """The relative inverse depth (see `depth_from_views` there), B x 1 x H x W."""


@dataclass(frozen=True)
class DepthPreviews:
    """Pictures of one step, to be shown. No gradients go through them."""

    frame: Tensor
    """The frame in the middle, B 3 H W."""
    warped: Tensor
    """The next frame, warped to look like the frame in the middle, B 3 H W."""
    disparity: Tensor
    """The disparity of the frame in the middle, B 1 H W."""
    kept: Tensor
    """Which pixels auto-masking keeps, B 1 H W bool."""


@dataclass(frozen=True)
class _Seen:
    """How well source frames show a target frame."""

    loss: Tensor
    """The photometric loss, a scalar."""
    explained: Tensor
    """The share of the still error (the one without warping) that warping removes."""
    warped: Tensor
    """The last source, warped to look like the target, B 3 H W."""
    kept: Tensor
    """Which pixels auto-masking keeps, B 1 H W bool."""


class DepthObjective(nn.Module):
    """Holds both networks of stage 1 and turns a batch into losses.

    `forward` returns (losses, previews). losses["total"] is to be differentiated. The other losses are its weighted terms, detached.
    Entries called "monitor/..." are figures to watch:
    - explained is the share of the still error that warping removes; 0 means that nothing is learnt.
    - masked is the share of pixels that are auto-masked.
    - relief is the spread of inverse depth in the middle of the frame over its mean; when it goes to 0, depth collapses to a plane.
    - focal is the focal length in image widths.
    - rotation is in degrees.
    - translation is relative to the head's distance where `pivot` is set, and in units of depth elsewhere.
    """

    def __init__(self, depth_network: DepthNetwork, egomotion: EgomotionNetwork, config: DepthLossConfig | None = None) -> None:
        super().__init__()
        self.depth_network = depth_network
        self.egomotion = egomotion
        self.config = config or DepthLossConfig()

    def forward(self, batch: DepthBatch | LabelledBatch, progress: float = 1.0) -> tuple[dict[str, Tensor], DepthPreviews | None]:
        """Computes losses. `progress` is the share of training that is done, in [0, 1]; `start_share` and `aligned_share` depend on it.

        Labelled batches have no previews.
        """
        if isinstance(batch, LabelledBatch):
            return self._taught(batch), None
        seen = [batch.frame_in]
        if self.config.consistency:
            seen.append(batch.next_in)
        if self.config.flip_consistency:
            seen.append(batch.frame_in.flip(-1))
        disparities = self.depth_network(torch.cat(seen))
        # Both pairs go through in one pass: batch statistics see the same data, and the network runs once a step.
        pairs = self.egomotion(torch.cat([batch.previous_in, batch.frame_in]), torch.cat([batch.frame_in, batch.next_in]))
        with torch.autocast(batch.frame.device.type, enabled=False):
            return self._losses(batch, [d.float() for d in disparities], pairs, progress)

    @torch.no_grad()
    def guess(self, frame: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Estimates the inverse depth of frames, B x 1 x H x W, and the camera that filmed them and the other frames.

        The camera is given by focal lengths and principal points, B x 2 each.
        """
        disparity = resize(self.depth_network(frame)[0].float(), (frame.shape[-2], frame.shape[-1]))
        camera = self.egomotion(frame, other)
        return 1 / self._depth(disparity), camera.focal.float(), camera.principal.float()

    def _taught(self, batch: LabelledBatch) -> dict[str, Tensor]:
        """Compares full-size inverse depth with the labels; both are relative to their means where the head is."""
        disparities = self.depth_network(batch.frame)
        with torch.autocast(batch.frame.device.type, enabled=False):
            size = (batch.inverse.shape[-2], batch.inverse.shape[-1])
            disparity = resize(disparities[0].float(), size)
            terms = {"views": label_difference(1 / self._depth(disparity), batch.inverse)}
            terms["level"] = self._level(disparity)
            # Data-parallel training needs every parameter in the graph.
            unused = sum((0 * d.float().mean() for d in disparities[1:]), disparity.new_zeros(()))
            unused = sum((0 * p.sum() for p in self.egomotion.parameters()), unused)
            return {"total": sum(terms.values(), unused)} | {name: value.detach() for name, value in terms.items()}

    def _level(self, disparity: Tensor) -> Tensor:
        return self.config.level * (_middle(disparity).mean((1, 2, 3)) - 0.5).square().mean()

    def _losses(
        self, batch: DepthBatch, disparities: list[Tensor], pairs: Egomotion, progress: float
    ) -> tuple[dict[str, Tensor], DepthPreviews]:
        config = self.config
        count = len(batch.frame)
        size = (batch.frame.shape[-2], batch.frame.shape[-1])
        # The maps are those of the frame, then of the next frame (with `consistency`), then of the mirrored one (with `flip_consistency`).
        following, mirrored = disparities[0][count : 2 * count], disparities[0][-count:]
        disparities = [d[:count] for d in disparities]
        depths = [self._depth(resize(d, size)) for d in disparities[: config.scales]]
        distance = 1 / head_level(1 / depths[0])[:, 0, 0, 0]
        # The three frames were filmed by one camera.
        camera = (_of_sample(pairs.focal), _of_sample(pairs.principal))
        pull = max(0.0, 1 - progress / config.start_share) if config.start_share and config.start_relief else 0.0
        bulge = start_bulge(batch.frame, config.start_relief)
        aligned = None
        if pull > 0 or progress < config.aligned_share:
            aligned = _align(batch, bulge.expand_as(depths[0]) if pull > 0 else 1 / depths[0], camera)
        if aligned is not None and progress < config.aligned_share:
            motions = _away_from_frame(*aligned, distance)
        else:
            motions = self._motions(pairs, distance)
        log_scale = None if pairs.log_scale is None else _of_sample(pairs.log_scale)
        seen = self._photometric(batch.frame, [batch.previous, batch.next], depths, camera, motions, log_scale)
        photometric = seen.loss
        if config.consistency:
            ahead = self._depth(following)
            match = match_shapes(depths[0], ahead, motions[1], intrinsics(*camera, size))
            # The depth of the next frame is known here, so the frame, seen through that depth, is compared with the next one as well.
            ahead = match.scale[:, None, None, None] * ahead
            again = self._photometric(batch.next, [batch.frame], [ahead], camera, [invert_motion(motions[1])], None)
            photometric = (photometric + again.loss) / 2

        terms = {"photometric": (1 - pull) * photometric}
        terms["smoothness"] = config.smoothness * _smoothness(disparities[: config.scales], batch.frame.float())
        terms["level"] = self._level(disparities[0])
        if self.egomotion.config.learn_camera:
            terms["intrinsics"] = config.intrinsics_prior * torch.log(camera[0] / self.egomotion.config.focal).square().mean()
        if config.flip_consistency:
            terms["flip"] = config.flip_consistency * F.l1_loss(disparities[0], mirrored.flip(-1))
        if config.consistency:
            terms["consistency"] = (1 - pull) * config.consistency * match.difference
        if pull > 0:
            terms["bulge"] = pull * torch.stack([bulge_difference(d, bulge) for d in disparities[: config.scales]]).mean()
        if aligned is not None:
            weight = config.imitation * (1.0 if progress < config.aligned_share else pull)
            terms["imitation"] = weight * self._imitation(pairs, aligned, distance)
        # Data-parallel training needs every parameter in the graph, also those of scales that are not trained.
        untrained = sum((0 * d.mean() for d in disparities[config.scales :]), photometric.new_zeros(()))
        relief = _middle(1 / depths[0])
        monitors = {
            "explained": seen.explained,
            "masked": 1 - seen.kept.float().mean(),
            "relief": (relief.std((1, 2, 3)) / relief.mean((1, 2, 3))).mean(),
            "focal": camera[0].mean(),
            "rotation": torch.linalg.vector_norm(pairs.rotation, dim=1).mean() * (180 / math.pi),
            "translation": torch.linalg.vector_norm(pairs.translation, dim=1).mean(),
        }
        previews = DepthPreviews(batch.frame.float(), seen.warped, disparities[0].detach(), seen.kept)
        shown = terms | {f"monitor/{name}": value for name, value in monitors.items()}
        return {"total": sum(terms.values(), untrained)} | {name: value.detach() for name, value in shown.items()}, previews

    def _photometric(
        self, target: Tensor, sources: list[Tensor], depths: list[Tensor], camera: tuple[Tensor, Tensor], motions: list[Tensor],
        log_scale: Tensor | None,
    ) -> _Seen:  # fmt: skip
        """Compares the target with what its sources show of it through its depths. The loss is averaged over scales and levels."""
        losses: list[Tensor] = []
        for level in range(self.config.levels):
            frame, *others = (_reduced(x, level) for x in (target, *sources))
            still_error = minimum_error(others, frame)
            matrix = intrinsics(*camera, (frame.shape[-2], frame.shape[-1]))
            inverse = invert_intrinsics(matrix)
            scale_of_error = None if log_scale is None else _reduced(log_scale, level)
            for scale, depth in enumerate(depths):
                points = back_project(_reduced(depth, level), inverse)
                warped = [warp(x, project(points, matrix, m)) for x, m in zip(others, motions, strict=True)]
                error = minimum_error(warped, frame)
                result = masked_photometric(error, still_error if self.config.automask else None, scale_of_error)
                losses.append(result.loss)
                if scale == level == 0:
                    shown, kept = warped[-1].detach(), result.kept
                    explained = 1 - torch.minimum(error, still_error).mean() / still_error.mean().clamp(min=1e-6)
        return _Seen(torch.stack(losses).mean(), explained, shown, kept)

    def _depth(self, disparity: Tensor) -> Tensor:
        config = self.depth_network.config
        return disparity_to_depth(disparity, config.min_depth, config.max_depth)

    def _imitation(self, pairs: Egomotion, aligned: tuple[Tensor, Tensor], distance: Tensor) -> Tensor:
        """Returns the mean absolute difference of the network's rotations and translations from aligned ones.

        Aligned motions are first brought to the units and the direction of the network's.
        """
        rotation, translation = aligned
        count = len(distance)
        # Aligned motions lead away from the frame, and the network's lead forward in time, so the first half is inverted.
        back = (axis_angle_to_rotation(-rotation[:count]) @ -translation[:count, :, None])[:, :, 0]
        rotation, translation = torch.cat([-rotation[:count], rotation[count:]]), torch.cat([back, translation[count:]])
        if not self.config.pivot:
            pivot = translation.new_tensor([0.0, 0.0, 1.0]).expand_as(translation)
            translation = distance.detach().repeat(2)[:, None] * rigid_motion(rotation, translation, pivot=pivot)[:, :3, 3]
        return F.l1_loss(pairs.rotation, rotation) + F.l1_loss(pairs.translation, translation)

    def _motions(self, pairs: Egomotion, distance: Tensor) -> list[Tensor]:
        """Returns the motions from the frame to the previous and to the next one. `distance` is the head's depth, B, used with `pivot`."""
        count = len(distance)
        pivot = None
        if self.config.pivot:
            # The distance is not detached: scaling all depths then leaves every projection, and so the loss, exactly as it was.
            pivot = distance[:, None] * distance.new_tensor([0.0, 0.0, 1.0])
            pairs = replace(pairs, translation=pairs.translation * distance.repeat(2)[:, None])
        # The first motion leads from the previous frame to this one, in temporal order, so the way back is its inverse.
        back = rigid_motion(pairs.rotation[:count], pairs.translation[:count], invert=True, pivot=pivot)
        forth = rigid_motion(pairs.rotation[count:], pairs.translation[count:], pivot=pivot)
        return [back, forth]


def _of_sample(of_pairs: Tensor) -> Tensor:
    """Returns the mean over the two pairs of each sample as float32: 2B x ... become B x ..."""
    return of_pairs.float().unflatten(0, (2, len(of_pairs) // 2)).mean(0)


def _align(batch: DepthBatch, shape: Tensor, camera: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Aligns the frame with the previous and the next one, given the frame's inverse depth `shape`.

    Returns rotations and translations, 2B x 3 each.
    """
    given = (torch.cat([x.detach(), x.detach()]) for x in (batch.frame, shape, *camera))
    frame, disparity, focal, principal = given
    return align(frame, torch.cat([batch.previous, batch.next]), disparity, focal, principal)


def _away_from_frame(rotation: Tensor, translation: Tensor, distance: Tensor) -> list[Tensor]:
    """Turns aligned rotations and translations, 2B x 3, into two motions, B 4 4, for heads at `distance`, B."""
    scale = distance.repeat(2)[:, None]
    pivot = scale * scale.new_tensor([0.0, 0.0, 1.0])
    return list(rigid_motion(rotation, scale * translation, pivot=pivot).chunk(2))


def _reduced(maps: Tensor, level: int) -> Tensor:
    """Returns maps as float32, reduced to 1 / 2^level of their size."""
    return F.avg_pool2d(maps.float(), 2**level) if level else maps.float()


def _middle(maps: Tensor) -> Tensor:
    """Returns the middle half, in height and in width, of B x C x H x W maps. The face is there."""
    height, width = maps.shape[-2:]
    return maps[..., height // 4 : height - height // 4, width // 4 : width - width // 4]


def _smoothness(disparities: list[Tensor], frame: Tensor) -> Tensor:
    """Returns the mean over scales of the edge-aware smoothness of each, where each scale weighs half as much as the one before."""
    each = [edge_aware_smoothness(d, resize(frame, (d.shape[-2], d.shape[-1]))) / 2**i for i, d in enumerate(disparities)]
    return torch.stack(each).mean()
