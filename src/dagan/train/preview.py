"""Pictures of a training run: depth in colours, keypoints as dots, rows and columns. Legend: n samples, K keypoints, H W image."""

from __future__ import annotations

import torch
from torch import Tensor

from dagan.geometry import gaussian_heatmap, resize


def colour_depth(disparity: Tensor) -> Tensor:
    """n x 3 x H x W in [0, 1] from n x 1 x H x W, each stretched to its own range; near is bright."""
    low, high = disparity.amin((1, 2, 3), keepdim=True), disparity.amax((1, 2, 3), keepdim=True)
    return _colours((disparity - low) / (high - low).clamp(min=1e-6), "magma")


def draw_keypoints(image: Tensor, value: Tensor) -> Tensor:
    """n x 3 x H x W with a dot of its own colour at each keypoint, value n x K x 2."""
    height, width = image.shape[-2:]
    count = value.shape[1]
    colours = _colours(torch.linspace(0, 1, count).reshape(1, 1, 1, count), "hsv")[0, :, 0].to(image.device)
    dots = gaussian_heatmap(value.float(), (height, width), variance=4e-4)
    for k in range(count):
        weight = dots[:, k : k + 1]
        image = image * (1 - weight) + colours[:, k].reshape(1, 3, 1, 1) * weight
    return image


def grid(columns: list[Tensor]) -> Tensor:
    """One picture 3 x (n H) x (columns W): a sample per row. Columns n x 1 or 3 x h x w are enlarged to the first one's size."""
    size = (columns[0].shape[-2], columns[0].shape[-1])
    full = [resize(c.float(), size).expand(-1, 3, -1, -1) for c in columns]
    row = torch.cat(full, dim=-1)
    return row.permute(1, 0, 2, 3).reshape(3, -1, row.shape[-1]).clamp(0, 1)


def _colours(values: Tensor, name: str) -> Tensor:
    """n x 3 x H x W from values n x 1 x H x W in [0, 1]."""
    from cmap import Colormap

    rgba = Colormap(name)(values[:, 0].detach().float().cpu().numpy())
    return torch.from_numpy(rgba[..., :3].copy()).float().permute(0, 3, 1, 2).to(values.device)
