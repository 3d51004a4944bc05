"""The objectives of stage 2: one module for each loss, with one forward pass a step (docs/method.md#stage-2).

Legend: B batch, H W image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dagan.data.landmark_tables import OPENINGS, POINTS
from dagan.errors import InputError
from dagan.geometry import ThinPlateTransform, gaussian_heatmap
from dagan.losses.gan import (
    CropLoss,
    FeatureNetwork,
    PerceptualLoss,
    discriminator_loss,
    equivariance,
    feature_matching,
    generator_loss,
    guidance,
    keypoint_distance,
)
from dagan.models.dagan import DaGAN, Reconstruction
from dagan.models.generator import Discriminator
from dagan.train.recipe import GanLossConfig

# The detail loss counts within Gaussian blobs of this variance round eyelids and lips. Their standard deviation is 9 pixels in 256.
DETAIL_VARIANCE = 0.005
# So many of `data.landmark_tables.POINTS` have such a blob: lips and lids come first there.
DETAILED = 8


class GanObjective(nn.Module):
    """The generator's objective. It takes source and driving images, B x 3 x H x W in [0, 1], and gives losses and the reconstruction.

    losses["total"] is to be differentiated. The depth network is frozen. `discriminator` is the bare network and gets no gradient; with
    None the adversarial losses are left out. Random transforms come from torch's global generator, which the loop seeds at each step.
    """

    def __init__(self, model: DaGAN, config: GanLossConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.perceptual: PerceptualLoss | None = None
        if config.perceptual > 0:
            network = FeatureNetwork(config.perceptual_features, config.perceptual_file)
            self.perceptual = PerceptualLoss(network, config.perceptual_scales, config.perceptual_relative, config.perceptual_pyramid)
        if model.depth_network is not None:
            model.depth_network.requires_grad_(False)
        stands = model.config.keypoints.landmarks
        unknown = [point for point in stands if point not in POINTS]
        if (config.guide > 0 or config.explicit > 0) and (unknown or not stands):
            raise InputError(
                f"model keypoints.landmarks is {list(stands)}: loss.guide and loss.explicit need some of {list(POINTS)}, and no others"
            )
        # `columns` are the columns of a batch's landmarks on which the explicit keypoints stand; `openings` are pairs of such keypoints.
        self.columns = [] if unknown else [POINTS.index(point) for point in stands]
        self.openings = [(stands.index(a), stands.index(b)) for a, b in OPENINGS if a in stands and b in stands]
        # Guided keypoints are free of the loss that pushes keypoints apart, because lips that close must be able to meet.
        self.free = list(range(len(stands) if config.guide > 0 else 0, model.config.keypoints.count))
        self.crops: CropLoss | None = None
        if config.crops > 0:
            self.crops = CropLoss(self.perceptual.network if self.perceptual is not None else None, POINTS)
        self.train()

    def train(self, mode: bool = True) -> GanObjective:
        """Sets the mode of all networks but the frozen depth network, which keeps its running statistics."""
        super().train(mode)
        if self.model.depth_network is not None:
            self.model.depth_network.eval()
        return self

    def forward(
        self, source: Tensor, driving: Tensor, discriminator: Discriminator | None = None, landmarks: Tensor | None = None
    ) -> tuple[dict[str, Tensor], Reconstruction]:
        config = self.config
        transform = None
        if config.equivariance_value > 0 or config.equivariance_jacobian > 0:
            sigmas = (config.affine_sigma, config.tps_sigma, config.tps_points)
            transform = ThinPlateTransform.random(len(driving), *sigmas, device=driving.device)
        made = self.model(
            source, driving, transform, None if landmarks is None else self._explicit(landmarks),
            separate_batches=config.detector_batches == "separate", estimate_transformed=config.transformed_depth == "estimated",
        )  # fmt: skip
        image = made.output.image
        losses: dict[str, Tensor] = {}
        if self.perceptual is not None:
            losses["perceptual"] = config.perceptual * self.perceptual(image, driving)
        if config.l1 > 0:
            losses["l1"] = config.l1 * (image - driving).abs().mean()
        if config.warped > 0:
            losses["warped"] = config.warped * (made.output.warped - driving).abs().mean()
        with torch.autocast(driving.device.type, enabled=False):
            if transform is not None and made.transformed is not None:
                value, jacobian = equivariance(made.driving, made.transformed, transform)
                losses["equivariance_value"] = config.equivariance_value * value
                losses["equivariance_jacobian"] = config.equivariance_jacobian * jacobian
            if config.keypoint_distance > 0 and len(self.free) > 1:
                spreads = [keypoint_distance(k.value[:, self.free], config.keypoint_alpha) for k in (made.origin, made.driving)]
                losses["keypoint_distance"] = config.keypoint_distance * torch.stack(spreads).sum()
            if landmarks is not None:
                losses |= self._guided(made, driving, landmarks)
        if discriminator is not None and config.adversarial > 0:
            losses |= self._adversarial(discriminator, made, driving)
        losses["total"] = torch.stack(list(losses.values())).sum()
        return losses, made

    def _guided(self, made: Reconstruction, driving: Tensor, landmarks: Tensor) -> dict[str, Tensor]:
        """Computes the losses that need landmarks, B x 2 x P x 2, of source and driving frame."""
        config, losses = self.config, {}
        if config.guide > 0:
            found = torch.stack([made.origin.value, made.driving.value], dim=1)[:, :, : len(self.columns)]
            losses["guide"] = config.guide * guidance(found.flatten(0, 1), landmarks[:, :, self.columns].flatten(0, 1), self.openings)
        if config.detail > 0:
            # A point that is not known is put far outside, where its heatmap is zero.
            near = gaussian_heatmap(landmarks[:, 1, :DETAILED].nan_to_num(9.0), (driving.shape[-2], driving.shape[-1]), DETAIL_VARIANCE)
            weight = near.amax(1, keepdim=True)
            difference = (made.output.image.float() - driving).abs() * weight
            losses["detail"] = config.detail * difference.sum() / (3 * weight.sum() + 1)
        if self.crops is not None:
            losses["crops"] = config.crops * self.crops(made.output.image, driving, landmarks[:, 1])
        return losses

    def _explicit(self, landmarks: Tensor) -> Tensor | None:
        """Returns landmarks to draw with, B x 2 x L x 2, NaN where the detector's own keypoints are to be used. None uses those alone."""
        if self.config.explicit == 0:
            return None
        points = landmarks[:, :, self.columns]
        noisy = points + self.config.explicit_noise * torch.randn_like(points)
        chosen = torch.rand(len(points), 1, 1, 1, device=points.device) < self.config.explicit
        return torch.where(chosen, noisy, torch.nan)

    def _adversarial(self, discriminator: Discriminator, made: Reconstruction, driving: Tensor) -> dict[str, Tensor]:
        keypoints = made.driving.value.detach()
        wanted = [p.requires_grad for p in discriminator.parameters()]
        discriminator.requires_grad_(False)
        try:
            with torch.no_grad():
                real, _ = discriminator(driving, keypoints)
            generated, prediction = discriminator(made.output.image, keypoints)
        finally:
            for parameter, flag in zip(discriminator.parameters(), wanted, strict=True):
                parameter.requires_grad_(flag)
        losses = {"adversarial": self.config.adversarial * generator_loss(prediction)}
        if self.config.feature_matching > 0:
            losses["feature_matching"] = self.config.feature_matching * feature_matching(real, generated)
        return losses


class DiscriminatorObjective(nn.Module):
    """The discriminator's objective. It takes driving and generated images and the driving keypoints, all detached, and gives the loss."""

    def __init__(self, discriminator: Discriminator) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, driving: Tensor, generated: Tensor, keypoints: Tensor) -> Tensor:
        # Real and generated images go through together, because a wrapped module is called once a step (docs/method.md#training-loop).
        images = torch.cat([driving, generated.to(driving.dtype)]).detach()
        _, prediction = self.discriminator(images, torch.cat([keypoints, keypoints]).detach())
        real, fake = prediction.chunk(2)
        return discriminator_loss(real, fake)
