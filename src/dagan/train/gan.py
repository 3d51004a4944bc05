"""Stage 2 as the training loop sees it: it takes pairs of frames and gives the model's weights. It measures how far results move the face.

Its objectives are one module for each loss, with one forward pass a step (docs/method.md#stage-2).

Legend: n or B samples, S side, H W image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning_fabric as L
import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from dagan.data.batches import Sampler
from dagan.data.config import PairConfig
from dagan.data.landmark_tables import OPENINGS, POINTS
from dagan.data.sampling import PairSampler
from dagan.data.store import open_dataset
from dagan.errors import InputError
from dagan.geometry import ThinPlateTransform, gaussian_heatmap
from dagan.losses.depth import ssim_map
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
from dagan.media.landmarks import EXPRESSIONS, Face, FaceLandmarker, Points, expressions, followed
from dagan.models.dagan import DaGAN, Reconstruction
from dagan.models.generator import Discriminator
from dagan.train.depth import load_depth
from dagan.train.log import colour_depth, draw_keypoints, grid
from dagan.train.recipe import GanLossConfig, GanRecipe, OptimiserConfig
from dagan.train.stage import SHOWN, Feeds, Objectives, Update, epochs_of, validation_sampler
from dagan.weights.convert import load_discriminator
from dagan.weights.files import load_weights, read_tensors, save_model

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


class GanStage:
    """Stage 2 trains generator and discriminator on pairs of frames. The depth network of stage 1 is frozen."""

    name = "gan"
    judged = "l1"

    def __init__(self, recipe: GanRecipe, fabric: L.Fabric) -> None:
        self.recipe, self.fabric = recipe, fabric
        self.model = DaGAN(recipe.model)
        if self.model.depth_network is not None and recipe.depth_weights is not None:
            load_depth(self.model.depth_network, recipe.depth_weights)
        if recipe.sync_batch_norm and fabric.world_size > 1:
            self.model = cast(DaGAN, nn.SyncBatchNorm.convert_sync_batchnorm(self.model))
        self.generator_objective = GanObjective(self.model, recipe.loss)
        objectives: dict[str, nn.Module] = {"generator": self.generator_objective}
        modules: dict[str, nn.Module] = {"model": self.model}
        self.discriminator: Discriminator | None = None
        if recipe.loss.adversarial > 0:
            self.discriminator = Discriminator(recipe.model.keypoints.count, recipe.discriminator_width, recipe.discriminator_max_width)
            objectives["discriminator"] = DiscriminatorObjective(self.discriminator)
            modules["discriminator"] = self.discriminator
        self.objectives: Mapping[str, nn.Module] = objectives
        self.modules: Mapping[str, nn.Module] = modules
        self.averaged: nn.Module = self.model
        self.notices: list[str] = []

    def optimiser(self, objective: str) -> OptimiserConfig:
        """Returns the optimiser of an objective. The discriminator may have its own."""
        own = self.recipe.discriminator_optimiser if objective == "discriminator" else None
        return own or self.recipe.optimiser

    def open_data(self, console: Console) -> None:
        """Decodes clips and portraits and makes the samplers of training and validation."""
        recipe = self.recipe
        for notice in self.notices:
            console.print(notice, highlight=False, soft_wrap=True)
        self.dataset = dataset = open_dataset(recipe.data, self.fabric.device, console)
        training = PairSampler(dataset, "train", recipe.data.balance, recipe.sampling, epochs_of(recipe))
        self.feeds = Feeds(recipe, self.fabric, dataset, training, recipe.sampling)
        self.validation = validation_sampler(dataset, lambda split: PairSampler(dataset, split, recipe.data.balance, PairConfig()))
        self.shown: Sampler = self.validation or PairSampler(dataset, "train", recipe.data.balance, PairConfig())

    def continue_from(self, batch: int, samples: int) -> None:
        """Counts the samples of epochs from here on."""
        self.feeds.continue_from(batch, samples)

    def close(self) -> None:
        """Stops reading batches ahead."""
        self.feeds.close()

    def prepare(self, step: int, averaged: nn.Module, say: Callable[[str], None], stopping: Callable[[], bool]) -> bool:
        """Does nothing, because this stage needs no preparation."""
        return True

    def updates(self, objectives: Objectives, batch: int, step: int) -> Iterator[Update]:
        """Yields the losses of the generator network, then those of the discriminator for the pictures that it has just drawn."""
        drawn = self.feeds.training.at(batch)
        source, driving = drawn.jittered.unbind(1)
        adversary = self.discriminator if step >= self.recipe.loss.adversarial_start else None
        losses, made = objectives["generator"](source, driving, adversary, drawn.landmarks)
        yield Update("generator", losses["total"], {k: v.detach() for k, v in losses.items()})
        if adversary is not None:
            generated, keypoints = made.output.image.detach(), made.driving.value.detach()
            loss = objectives["discriminator"](driving, generated, keypoints)
            yield Update("discriminator", loss, {"total": loss.detach()})

    def pictures(self, averaged: nn.Module) -> dict[str, Tensor]:
        """Shows source, driving frame, result, warped source, depth and occlusion, one sample per row. Keypoints are dots."""
        source, driving = next(self.feeds.fixed(self.shown, SHOWN)).plain.unbind(1)
        made: Reconstruction = averaged(source, driving)
        columns = [
            draw_keypoints(source, made.source.keypoints.value),
            draw_keypoints(driving, made.driving.value),
            made.output.image,
            made.output.warped,
            *([] if made.source.disparity is None else [colour_depth(made.source.disparity)]),
            made.output.occlusion,
        ]
        return {"transfer": grid(columns)}

    def validate(self, averaged: nn.Module) -> dict[str, float]:
        """Measures how well driving frames are rebuilt: l1, psnr and ssim (3 x 3 windows), with range 1.

        still_l1 is the l1 of the source taken as the result. Where landmarks are known, learnt_mouth, learnt_eyes and so on say how far
        results move the face; 1 is as far as driven. If the recipe trains with explicit keypoints, mouth, eyes and so on say the same
        for results that are driven by landmarks.
        """
        if self.validation is None:
            return {}
        samples = self.recipe.validation_samples
        rulers: dict[str, MovementRuler] = {}
        if self.dataset.landmarks is not None:
            landmarker = FaceLandmarker()
            rulers = {way: MovementRuler() for way in (("learnt_", "") if self.recipe.loss.explicit > 0 else ("learnt_",))}
        sums = torch.zeros(4, device=self.fabric.device)
        for batch in self.feeds.fixed(self.validation, samples):
            source, driving = batch.plain.unbind(1)
            image = averaged(source, driving).output.image.float()
            difference = image - driving
            psnr = -10 * torch.log10(difference.square().mean((1, 2, 3)).clamp(min=1e-10))
            ssim = ssim_map(image, driving).mean((1, 2, 3))
            each = [difference.abs().mean((1, 2, 3)), psnr, ssim, (source - driving).abs().mean((1, 2, 3))]
            sums += torch.stack([x.sum() for x in each])
            if rulers:
                results = {"learnt_": image}
                if "" in rulers and batch.landmarks is not None:
                    columns = self.generator_objective.columns
                    results[""] = averaged(source, driving, None, batch.landmarks[:, :, columns]).output.image.float()
                rest, driven = (read_movements(x, landmarker) for x in (source, driving))
                for way, result in results.items():
                    rulers[way].add(rest, driven, read_movements(result, landmarker))
        figures = dict(zip(("l1", "psnr", "ssim", "still_l1"), (sums / samples).tolist(), strict=True))
        for way, ruler in rulers.items():
            figures |= ruler.slopes(way)
        return figures

    def start_from(self, path: Path) -> None:
        """Loads a whole model, with its discriminator where the file holds one. It may be of any image size: no weight depends on it.

        Where the recipe has depth_weights, they replace those of the file, so that stage 2 can go on with a better depth network.
        """
        tensors, _ = read_tensors(path)
        load_weights(self.model, tensors, str(path), "the recipe's model")
        if self.model.depth_network is not None and self.recipe.depth_weights is not None:
            load_depth(self.model.depth_network, self.recipe.depth_weights)
        if self.discriminator is not None and not load_discriminator(self.discriminator, path):
            self.notices.append(f"{path.name} holds no discriminator: training starts with a new one (dagan convert --with-discriminator)")

    def export(self, averaged: nn.Module, folder: Path, card: Mapping[str, Any]) -> Path:
        """Writes model.safetensors and returns its path."""
        path = folder / "model.safetensors"
        save_model(path, cast(DaGAN, averaged), card)
        return path




class MovementRuler:
    """Collects results beside their source and driving frames, for one way of driving."""

    def __init__(self) -> None:
        self._driven: list[Points] = []
        self._drawn: list[Points] = []

    def add(self, source: Points, driving: Points, result: Points) -> None:
        """Adds the expressions of B samples, B x E each, as `read_movements` gives them. Faces that were not found are left out."""
        seen = np.isfinite(source + driving + result).all(axis=1)
        self._driven.append((driving - source)[seen])
        self._drawn.append((result - source)[seen])

    def slopes(self, prefix: str) -> dict[str, float]:
        """Returns the slope of each movement under its name with a prefix. What cannot be told is left out."""
        found = followed(np.concatenate(self._driven), np.concatenate(self._drawn)) if self._driven else {}
        return {f"{prefix}{key.removesuffix('_slope')}": value for key, value in found.items() if key.endswith("_slope")}


def read_movements(images: Tensor, landmarker: FaceLandmarker) -> Points:
    """Returns the B x E numbers of `media.expression` for the largest face in each image, B x 3 x H x W in [0, 1]; NaN without a face."""
    pictures = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    rows = np.full((len(pictures), len(EXPRESSIONS)), np.nan, np.float32)
    for row, picture in zip(rows, pictures, strict=True):
        faces = landmarker.detect(np.ascontiguousarray(picture), thorough=False)
        if faces:
            row[:] = expressions(partial(_place, faces[0]))[0]
    return rows


def _place(face: Face, point: int) -> Points:
    return face.landmarks[None, point, :2]
