"""Stage 1 as the training loop sees it: it takes triplets of frames and gives the depth network's weights as a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import lightning_fabric as L
from rich.console import Console
from torch import Tensor, nn

from dagan.checks import dump
from dagan.data.batches import Batch, Sampler
from dagan.data.sampling import ClipChooser, TripletSampler
from dagan.data.store import open_dataset
from dagan.errors import InputError
from dagan.losses.gan import read_state
from dagan.models.depth import DepthNetwork, EgomotionNetwork, ResNetEncoder
from dagan.train.depth_objective import DepthBatch, DepthObjective, LabelledBatch
from dagan.train.labels import LabelFiles, Labels, find_labels, labelled_batch, stamp_of
from dagan.train.log import colour_depth, grid
from dagan.train.recipe import DepthRecipe, OptimiserConfig
from dagan.train.stage import SHOWN, Feeds, Objectives, Update, epochs_of, validation_sampler
from dagan.weights.files import load_weights, read_tensors, write_tensors

_PREFIX = "depth_network."


class DepthStage:
    """Stage 1 trains the networks for depth, egomotion and camera on triplets of frames."""

    name = "depth"
    judged = "total"

    def __init__(self, recipe: DepthRecipe, fabric: L.Fabric) -> None:
        self.recipe, self.fabric = recipe, fabric
        self.objective = DepthObjective(DepthNetwork(recipe.model), EgomotionNetwork(recipe.egomotion), recipe.loss)
        if recipe.encoder_weights is not None:
            start_encoder(self.objective.depth_network.encoder, recipe.encoder_weights, recipe.model.encoder)
            if recipe.egomotion.encoder == recipe.model.encoder:
                start_encoder(self.objective.egomotion.encoder, recipe.encoder_weights, recipe.egomotion.encoder)
        if recipe.sync_batch_norm and fabric.world_size > 1:
            self.objective = cast(DepthObjective, nn.SyncBatchNorm.convert_sync_batchnorm(self.objective))
        self.objectives: Mapping[str, nn.Module] = {"depth": self.objective}
        self.modules: Mapping[str, nn.Module] = {"objective": self.objective}
        self.averaged: nn.Module = self.objective
        self.labels: Labels | None = None
        self.round = -1

    def optimiser(self, objective: str) -> OptimiserConfig:
        """Returns the recipe's only optimiser."""
        return self.recipe.optimiser

    def open_data(self, console: Console) -> None:
        """Decodes the clips and makes the samplers of training and validation."""
        recipe = self.recipe
        self.dataset = dataset = open_dataset(recipe.data, self.fabric.device, console)

        def sampler(split: str) -> TripletSampler:
            return TripletSampler(dataset, split, recipe.data.balance, recipe.sampling)

        training = TripletSampler(dataset, "train", recipe.data.balance, recipe.sampling, epochs_of(recipe))
        self.feeds = Feeds(recipe, self.fabric, dataset, training, None)
        self.validation = validation_sampler(dataset, sampler)
        self.shown: Sampler = self.validation or sampler("train")

    def continue_from(self, batch: int, samples: int) -> None:
        """Counts the samples of epochs from here on."""
        self.feeds.continue_from(batch, samples)

    def close(self) -> None:
        """Stops reading batches ahead."""
        self.feeds.close()

    def prepare(self, step: int, averaged: nn.Module, say: Callable[[str], None], stopping: Callable[[], bool]) -> bool:
        """Finds labels at the start of each round of `recipe.views`. A run that is resumed within a round reads its own labels again.

        Returns False when training is to stop.
        """
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
                found = self.labels  # The labels of the round before are kept, and saved so that a resumed run has them too.
            files.save(current, found)
        self.round = current
        if len(found.numbers):
            self.labels = found
            # Pairs of frames that were read ahead are not needed any more.
            self.feeds.close()
        return True

    def updates(self, objectives: Objectives, batch: int, step: int) -> Iterator[Update]:
        """Yields the losses of the one objective."""
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
        """Shows, for one sample per row, the frame, the warped neighbour, the depth, and the pixels that auto-masking kept."""
        batch = next(self.feeds.fixed(self.shown, SHOWN))
        _, seen = averaged(_triplet(batch))
        columns = [seen.frame, seen.warped, colour_depth(seen.disparity), seen.kept.float()]
        return {"depth": grid(columns)}

    def validate(self, averaged: nn.Module) -> dict[str, float]:
        """Returns the losses and monitors of the training objective on validation samples."""
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
        """Loads the depth network from a depth file or from a whole model."""
        load_depth(self.objective.depth_network, path)

    def export(self, averaged: nn.Module, folder: Path, card: Mapping[str, Any]) -> Path:
        """Writes depth.safetensors and returns its path."""
        path = folder / "depth.safetensors"
        save_depth(path, cast(DepthObjective, averaged).depth_network, card)
        return path


def start_encoder(encoder: ResNetEncoder, file: Path, name: str) -> None:
    """Fills an encoder with ImageNet weights under torchvision's names, as a safetensors file or a state dict. The classifier is ignored.

    An encoder of two stacked images gets half of the first convolution's weights for each, so that two equal images give the features of
    one. Raises InputError for files that are missing, of another kind, or of another ResNet.
    """
    what = f"torchvision's {name} with ImageNet weights (encoder_weights; null starts from random ones)"
    state = {key: value for key, value in read_state(file, what).items() if not key.startswith("fc.")}
    wanted = encoder.state_dict()
    # Files from before 2019 do not count batches. The count has no effect here.
    state |= {key: value for key, value in wanted.items() if key.endswith("num_batches_tracked") and key not in state}
    images = wanted["conv1.weight"].shape[1] // 3
    if "conv1.weight" in state and images > 1:
        state["conv1.weight"] = state["conv1.weight"].repeat(1, images, 1, 1) / images
    load_weights(encoder, state, str(file), what)


def _triplet(batch: Batch) -> DepthBatch:
    return DepthBatch(*batch.plain.unbind(1), *batch.jittered.unbind(1))


def save_depth(path: Path, network: DepthNetwork, card: Mapping[str, Any]) -> None:
    """Writes the weights, with configuration and card as metadata. The file is written beside its final name and then renamed."""
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in network.state_dict().items()}
    write_tensors(path, tensors, {"dagan_depth": json.dumps({"config": dump(network.config), "card": dict(card)})})


def load_depth(network: DepthNetwork, path: Path) -> None:
    """Fills the network from a depth file or from a whole model's file. Raises InputError where they do not fit."""
    tensors, _ = read_tensors(path)
    inner = {key.removeprefix(_PREFIX): tensor for key, tensor in tensors.items() if key.startswith(_PREFIX)}
    load_weights(network, inner or tensors, str(path), "the recipe's depth network")
