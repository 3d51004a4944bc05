"""Both stages of training as the loop sees them: data, objectives, what is shown, measured and exported.

Legend: n samples, S side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import lightning_fabric as L
import torch
from rich.console import Console
from torch import Tensor, nn

from dagan.data.batches import Batch, BatchSource, Sampler
from dagan.data.config import NO_AUGMENT, PairConfig
from dagan.data.sampling import ClipChooser, PairSampler, TripletSampler
from dagan.data.store import ClipDataset, open_dataset
from dagan.errors import InputError
from dagan.losses.photometric import ssim_map
from dagan.media.landmarks import FaceLandmarker
from dagan.models.dagan import DaGAN, Reconstruction
from dagan.models.depth import DepthNetwork
from dagan.models.discriminator import Discriminator
from dagan.models.egomotion import EgomotionNetwork
from dagan.train import preview
from dagan.train.depth import DepthBatch, DepthObjective, LabelledBatch
from dagan.train.depth_file import load_depth, save_depth
from dagan.train.gan import DiscriminatorObjective, GanObjective
from dagan.train.labels import LabelFiles, Labels, find_labels, labelled_batch, stamp_of
from dagan.train.movements import MovementRuler
from dagan.train.movements import read as read_movements
from dagan.train.recipe import DepthRecipe, GanRecipe, OptimiserConfig, Recipe
from dagan.train.stage import Objectives, Update
from dagan.weights.convert import load_discriminator
from dagan.weights.files import load_weights, read_tensors, save_model

# Samples shown in a picture, and the largest batch of validation.
SHOWN = 6
VALIDATION_BATCH = 16
# Seed of the samples that are shown and measured: the same in every run, so that runs can be compared.
FIXED = 20


class _Feeds:
    """Training batches and, where identities are held out, fixed batches of those."""

    def __init__(self, recipe: Recipe, fabric: L.Fabric, dataset: ClipDataset, training: Sampler, pairs: PairConfig | None) -> None:
        self.training = BatchSource(
            dataset, training, recipe.augment, batch_size=recipe.batch_size, seed=recipe.seed, device=fabric.device,
            rank=fabric.global_rank, pairs=pairs, workers=recipe.data.workers,
        )  # fmt: skip
        self.recipe, self.dataset, self.device = recipe, dataset, fabric.device

    def close(self) -> None:
        """Ends reading ahead."""
        self.training.close()

    def fixed(self, sampler: Sampler, samples: int) -> Iterator[Batch]:
        """The same samples at every call, as they are."""
        for first in range(0, samples, VALIDATION_BATCH):
            size = min(VALIDATION_BATCH, samples - first)
            yield BatchSource(self.dataset, sampler, NO_AUGMENT, batch_size=size, seed=FIXED, device=self.device).at(first)


def _validation_sampler(dataset: ClipDataset, make: Any) -> Sampler | None:
    """None where no clip is held out, or all that are have too few frames."""
    if not len(dataset.members("validation")):
        return None
    try:
        return cast(Sampler, make("validation"))
    except InputError:
        return None


class DepthStage:
    """Stage 1: depth, egomotion and camera from triplets of frames."""

    name = "depth"

    def __init__(self, recipe: DepthRecipe, fabric: L.Fabric) -> None:
        self.recipe, self.fabric = recipe, fabric
        self.objective = DepthObjective(DepthNetwork(recipe.model), EgomotionNetwork(recipe.egomotion), recipe.loss)
        if recipe.sync_batch_norm and fabric.world_size > 1:
            self.objective = cast(DepthObjective, nn.SyncBatchNorm.convert_sync_batchnorm(self.objective))
        self.objectives: Mapping[str, nn.Module] = {"depth": self.objective}
        self.modules: Mapping[str, nn.Module] = {"objective": self.objective}
        self.averaged: nn.Module = self.objective
        self.labels: Labels | None = None
        self.round = -1

    def optimiser(self, objective: str) -> OptimiserConfig:
        """The recipe's only one."""
        return self.recipe.optimiser

    def open_data(self, console: Console) -> None:
        """Decodes the clips."""
        recipe = self.recipe
        self.dataset = dataset = open_dataset(recipe.data, self.fabric.device, console)

        def sampler(split: str) -> TripletSampler:
            return TripletSampler(dataset, split, recipe.data.balance, recipe.sampling)

        training = sampler("train")
        self.feeds = _Feeds(recipe, self.fabric, dataset, training, None)
        self.validation = _validation_sampler(dataset, sampler)
        self.shown: Sampler = self.validation or training

    def close(self) -> None:
        """Ends reading ahead."""
        self.feeds.close()

    def prepare(self, step: int, averaged: nn.Module, say: Callable[[str], None], stopping: Callable[[], bool]) -> bool:
        """Finds labels at the start of each round of `recipe.views`; a run that is resumed within a round reads its own again."""
        recipe, views = self.recipe, self.recipe.views
        if not views.rounds:
            return True
        current, starts = views.round_of(step, recipe.max_steps)
        if current < 0 or (not starts and current == self.round):
            return True
        rank = self.fabric.global_rank
        files = LabelFiles(recipe.output, rank, stamp_of(self.dataset, views, recipe.seed, recipe.data.size))
        found = None if starts else files.load(current)
        if found is None:
            say(f"round {current + 1} of {views.rounds}: finding the depth of {views.frames} frames from their clips")
            try:
                chooser = ClipChooser(self.dataset, "train", recipe.data.balance, views.shortest)
            except InputError:
                say(f"no training clip has {views.shortest} frames or more, as views need: training goes on with pairs of frames")
                self.round = current
                return True
            found = find_labels(
                self.dataset, chooser, views, current, cast(DepthObjective, averaged).guess,
                seed=recipe.seed, rank=rank, device=self.fabric.device, stopping=stopping,
            )  # fmt: skip
            if found is None:
                return False
            say(f"{len(found.numbers)} of them are in clips that turn enough")
            if not len(found.numbers) and self.labels is not None:
                found = self.labels  # those of the round before, for a resumed run too
            files.save(current, found)
        self.round = current
        if len(found.numbers):
            self.labels = found
            # Pairs that were read ahead are not needed any more.
            self.feeds.close()
        return True

    def updates(self, objectives: Objectives, batch: int, step: int) -> Iterator[Update]:
        """The one objective."""
        losses, _ = objectives["depth"](self._batch(batch), step / self.recipe.max_steps)
        yield Update("depth", losses["total"], {k: v.detach() for k, v in losses.items()})

    def _batch(self, batch: int) -> DepthBatch | LabelledBatch:
        recipe = self.recipe
        if self.labels is None:
            return _triplet(self.feeds.training.at(batch))
        return labelled_batch(
            self.labels, self.dataset, recipe.augment, recipe.batch_size,
            seed=recipe.seed, step=batch, rank=self.fabric.global_rank, device=self.fabric.device,
        )  # fmt: skip

    def pictures(self, averaged: nn.Module) -> dict[str, Tensor]:
        """frame, warped neighbour, depth, pixels that were kept; one sample per row."""
        batch = next(self.feeds.fixed(self.shown, SHOWN))
        _, seen = averaged(_triplet(batch))
        columns = [seen.frame, seen.warped, preview.colour_depth(seen.disparity), seen.kept.float()]
        return {"depth": preview.grid(columns)}

    def validate(self, averaged: nn.Module) -> dict[str, float]:
        """The losses and monitors of the training objective."""
        if self.validation is None:
            return {}
        means: dict[str, float] = {}
        for batch in self.feeds.fixed(self.validation, self.recipe.validation_samples):
            losses, _ = averaged(_triplet(batch))
            share = len(batch.plain) / self.recipe.validation_samples
            for name, value in losses.items():
                means[name] = means.get(name, 0.0) + share * float(value)
        return means

    def start_from(self, path: Path) -> None:
        """A depth file or a whole model."""
        load_depth(self.objective.depth_network, path)

    def export(self, averaged: nn.Module, folder: Path, card: Mapping[str, Any]) -> Path:
        """Writes depth.safetensors."""
        path = folder / "depth.safetensors"
        save_depth(path, cast(DepthObjective, averaged).depth_network, card)
        return path


class GanStage:
    """Stage 2: generator and discriminator from pairs of frames; the depth network of stage 1 is frozen."""

    name = "gan"

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

    def optimiser(self, objective: str) -> OptimiserConfig:
        """The discriminator may have its own."""
        own = self.recipe.discriminator_optimiser if objective == "discriminator" else None
        return own or self.recipe.optimiser

    def open_data(self, console: Console) -> None:
        """Decodes clips and portraits."""
        recipe = self.recipe
        self.dataset = dataset = open_dataset(recipe.data, self.fabric.device, console)
        training = PairSampler(dataset, "train", recipe.data.balance, recipe.sampling)
        self.feeds = _Feeds(recipe, self.fabric, dataset, training, recipe.sampling)
        self.validation = _validation_sampler(dataset, lambda split: PairSampler(dataset, split, recipe.data.balance, PairConfig()))
        self.shown: Sampler = self.validation or PairSampler(dataset, "train", recipe.data.balance, PairConfig())

    def close(self) -> None:
        """Ends reading ahead."""
        self.feeds.close()

    def prepare(self, step: int, averaged: nn.Module, say: Callable[[str], None], stopping: Callable[[], bool]) -> bool:
        """Nothing."""
        return True

    def updates(self, objectives: Objectives, batch: int, step: int) -> Iterator[Update]:
        """The generator's side, then the discriminator's on the same pictures."""
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
        """source, driving, result, warped source, depth, occlusion; keypoints as dots; one sample per row."""
        source, driving = next(self.feeds.fixed(self.shown, SHOWN)).plain.unbind(1)
        made: Reconstruction = averaged(source, driving)
        columns = [
            preview.draw_keypoints(source, made.source.keypoints.value),
            preview.draw_keypoints(driving, made.driving.value),
            made.output.image,
            made.output.warped,
            *([] if made.source.disparity is None else [preview.colour_depth(made.source.disparity)]),
            made.output.occlusion,
        ]
        return {"transfer": preview.grid(columns)}

    def validate(self, averaged: nn.Module) -> dict[str, float]:
        """l1, psnr and ssim (3 x 3 windows) of rebuilt driving frames, range 1; still_l1: of the source taken as the result.

        Where landmarks are known, learnt_mouth, learnt_eyes and so on too: how far results move the face (1 is as far as driven), and
        mouth, eyes, ... where landmarks drive, if the recipe trains for it.
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
        """A whole model, of any image size: nothing in it depends on the size. With its discriminator, where the file keeps it.

        The recipe's depth_weights, where it names any, take the place of the file's: stage 2 goes on with a better depth network.
        """
        tensors, _ = read_tensors(path)
        load_weights(self.model, tensors, str(path), "the recipe's model")
        if self.model.depth_network is not None and self.recipe.depth_weights is not None:
            load_depth(self.model.depth_network, self.recipe.depth_weights)
        if self.discriminator is not None:
            load_discriminator(self.discriminator, path)

    def export(self, averaged: nn.Module, folder: Path, card: Mapping[str, Any]) -> Path:
        """Writes model.safetensors."""
        path = folder / "model.safetensors"
        save_model(path, cast(DaGAN, averaged), card)
        return path


def _triplet(batch: Batch) -> DepthBatch:
    return DepthBatch(*batch.plain.unbind(1), *batch.jittered.unbind(1))
