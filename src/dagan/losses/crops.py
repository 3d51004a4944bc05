"""A loss on mouth and eyes, cut out and enlarged: they are what people look at, and some 2 % of the picture.

Legend: B batch, P landmarks, H W image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dagan.geometry import coordinate_grid, sample
from dagan.losses.features import FeatureNetwork, PerceptualLoss

# Height and width of what the mouth and the strip of both eyes are enlarged to, in pixels.
MOUTH, EYES = (64, 64), (48, 96)
# Half of the sides that are cut out, relative to the face's height.
MOUTH_REACH, EYES_REACH = (0.22, 0.22), (0.17, 0.34)
# Of the L1 beside the perceptual distance, both relative: the features are relative to their means, about a third is a colour's.
L1 = 3.0


class FaceCrops(nn.Module):
    """(image B x C x H x W, landmarks B x P x 2 in [-1, 1]) -> mouths and strips of both eyes, enlarged to MOUTH and EYES.

    points: the mesh points that the P landmarks are, in their order. Where landmarks are NaN, the middle of the picture is cut out.
    """

    def __init__(self, points: Sequence[int]) -> None:
        super().__init__()
        self.places = {point: place for place, point in enumerate(points)}

    def forward(self, image: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor]:
        mouth = self._cut(image, landmarks, (61, 291, 13, 14), MOUTH, MOUTH_REACH)
        return mouth, self._cut(image, landmarks, (33, 263, 133, 362), EYES, EYES_REACH)

    def _cut(
        self, image: Tensor, landmarks: Tensor, round_points: Sequence[int], size: tuple[int, int], reach: tuple[float, float]
    ) -> Tensor:
        def at(*points: int) -> Tensor:
            return landmarks[:, [self.places[point] for point in points]].mean(1)

        height = (at(10) - at(152)).norm(dim=-1, keepdim=True).nan_to_num(1.0)
        middle, half = at(*round_points).nan_to_num(0.0), height * height.new_tensor(reach[::-1])
        grid = coordinate_grid(*size, device=image.device)[None] * half[:, None, None] + middle[:, None, None]
        return sample(image, grid, align_corners=True, padding_mode="border")


class CropLoss(nn.Module):
    """(result, target), B x 3 x H x W in [0, 1], and the target's landmarks, B x P x 2 in [-1, 1] -> one number.

    network: features for the perceptual part, None leaves it out. points: see FaceCrops.
    """

    def __init__(self, network: FeatureNetwork | None, points: Sequence[int]) -> None:
        super().__init__()
        self.crops = FaceCrops(points)
        self.perceptual = None if network is None else PerceptualLoss(network, scales=1, relative=True)

    def forward(self, result: Tensor, target: Tensor, landmarks: Tensor) -> Tensor:
        total = result.new_zeros((), dtype=torch.float32)
        for cut in self.crops(torch.cat([result.float(), target], dim=1), landmarks):
            mine, theirs = cut.split(3, dim=1)
            total = total + L1 * (mine - theirs).abs().mean()
            if self.perceptual is not None:
                total = total + self.perceptual(mine, theirs)
        return total
