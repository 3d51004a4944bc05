"""Random colour, mirroring and framing, one draw per sample for all its frames. Legend: n samples, k frames, H W image.

Frames are float n x k x 3 x H x W in [0, 1]. Numbers are drawn on the CPU, so every device gets the same pictures.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from dagan.data.config import AugmentConfig, PairConfig
from dagan.data.landmarks import MIRRORED
from dagan.geometry import ThinPlateTransform, coordinate_grid, inverse_2x2, resize_grid, sample

# Side of the grid on which random motions are computed.
COARSE = 33


def jitter_colours(frames: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Brightness, contrast, saturation, hue, in this order; frames themselves where the configuration changes nothing."""
    if not config.jitters:
        return frames
    from kornia import enhance

    count, k, _, height, width = frames.shape
    # All frames of a sample as one tall picture: they share the mean grey that contrast turns about.
    tall = frames.transpose(1, 2).reshape(count, 3, k * height, width)
    if config.brightness:
        tall = enhance.adjust_brightness_accumulative(tall, _factors(config.brightness, frames, generator))
    if config.contrast:
        tall = enhance.adjust_contrast_with_mean_subtraction(tall, _factors(config.contrast, frames, generator))
    if config.saturation:
        tall = enhance.adjust_saturation_with_gray_subtraction(tall, _factors(config.saturation, frames, generator))
    if config.hue:
        turns = (_factors(config.hue, frames, generator) - 1) * (2 * torch.pi)
        tall = enhance.adjust_hue(tall, turns)
    return cast(Tensor, tall).reshape(count, 3, k, height, width).transpose(1, 2).clamp(0, 1)


def reframe(
    frames: Tensor,
    config: AugmentConfig,
    generator: torch.Generator,
    still: Tensor | None = None,
    pairs: PairConfig | None = None,
    points: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Mirrors, zooms, shifts and rotates; samples marked `still` (n, bool) also get a motion of their own in every frame.

    Everything is one look-up, so pictures are interpolated once; without any framing they are mirrored exactly.
    points: n x k x P x 2 landmarks (`data.landmarks`), returned where they are now; NaN in samples with motions of their own.
    """
    count, k, _, height, width = frames.shape
    mirror = torch.rand(count, generator=generator) < config.flip
    matrix = _affine(count, config, generator)
    moved = still is not None and pairs is not None and bool(still.any())
    if not config.moves and not moved:
        place = mirror.to(frames.device)[:, None, None, None, None]
        matrix = torch.eye(2, 3).repeat(count, 1, 1)
        matrix[:, :, 0] *= torch.where(mirror, -1.0, 1.0)[:, None]
        return torch.where(place, frames.flip(-1), frames) if config.flip else frames, _move_points(points, matrix, mirror, None)
    matrix[:, :, 0] *= torch.where(mirror, -1.0, 1.0)[:, None]
    points = _move_points(points, matrix, mirror, still if moved else None)
    grid = coordinate_grid(height, width, device=frames.device).reshape(1, 1, -1, 2).expand(count, k, -1, -1)
    if still is not None and pairs is not None and moved:
        grid = grid.clone()
        places = still.nonzero()[:, 0]
        shaken = _random_motion(len(places) * k, (height, width), pairs, generator)
        grid[places.to(frames.device)] = shaken.reshape(len(places), k, -1, 2).to(frames.device)
    matrix = matrix.to(frames.device)[:, None]
    grid = grid @ matrix[..., :2].transpose(-1, -2) + matrix[:, :, None, :, 2]
    grid = grid.reshape(count * k, height, width, 2)
    return sample(frames.flatten(0, 1), grid, align_corners=True, padding_mode="reflection").reshape(frames.shape), points


def _move_points(points: Tensor | None, matrix: Tensor, mirror: Tensor, lost: Tensor | None) -> Tensor | None:
    """Where points of the pictures come to lie: `matrix` (n x 2 x 3, CPU) tells where places of the results look."""
    if points is None:
        return None
    linear, offset = inverse_2x2(matrix[:, :, :2]), matrix[:, :, 2]
    moved = (points.cpu() - offset[:, None, None]) @ linear.transpose(1, 2)[:, None]
    moved = torch.where(mirror[:, None, None, None], moved[:, :, list(MIRRORED)], moved)
    if lost is not None:
        moved[lost.cpu()] = torch.nan
    return moved.to(points.device)


def _random_motion(count: int, size: tuple[int, int], pairs: PairConfig, generator: torch.Generator) -> Tensor:
    """count x H x W x 2 places after a random thin-plate motion, which is smooth: computed on a coarse grid and enlarged."""
    transform = ThinPlateTransform.random(count, pairs.affine_sigma, pairs.tps_sigma, generator=generator)
    coarse = coordinate_grid(COARSE, COARSE).reshape(1, -1, 2).expand(count, -1, -1)
    return resize_grid(transform.warp_coordinates(coarse).reshape(count, COARSE, COARSE, 2), size, align_corners=True)


def _affine(count: int, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """n x 2 x 3: where a place of the result looks, in [-1, 1] coordinates."""
    low, high = config.zoom
    scale = 1 / (low + (high - low) * torch.rand(count, generator=generator))
    angle = torch.deg2rad(config.rotate * _signed(count, generator))
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    # A shift by the whole side is 2 in coordinates.
    shift = 2 * config.shift * torch.stack([_signed(count, generator), _signed(count, generator)], dim=-1)
    turn = torch.stack([torch.stack([cosine, -sine], -1), torch.stack([sine, cosine], -1)], -2)
    return torch.cat([turn, shift[..., None]], dim=-1)


def _signed(count: int, generator: torch.Generator) -> Tensor:
    return 2 * torch.rand(count, generator=generator) - 1


def _factors(amount: float, frames: Tensor, generator: torch.Generator) -> Tensor:
    return (1 + amount * _signed(len(frames), generator)).to(frames.device)
