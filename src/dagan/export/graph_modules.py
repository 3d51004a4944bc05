"""The four graphs as which a model is exported, and what goes into them and comes out, by name.

    encoder     image -> source_value, source_jacobian, source_small, source_features_0 .. , source_query (attention at the
                coarsest scale) or source_query_0 .. (at all scales)
    keypoints   image -> value, jacobian
    depth       image -> disparity (models with depth)
    generator   value, jacobian, source_image and what the encoder gave -> result, deformation

Images are B x 3 x S x S in [0, 1], values B x K x 2 in [-1, 1], Jacobians B x K x 2 x 2. The generator takes one source for a batch of
keypoints.

Legend: B batch (dynamic), K keypoints, S side of the model's images, h side at which motion is computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dagan.engine.sessions import DEPTH, ENCODER, GENERATOR, KEYPOINTS
from dagan.models.dagan import DaGAN, Source
from dagan.models.generator import SourceFeatures
from dagan.models.keypoints import Keypoints

_EXAMPLE_BATCH = 2  # It is above one, so that no size of one is taken for a constant.
_CHECK_BATCH = 3  # It differs from the one above, so that a graph with a constant batch is found out.


@dataclass(frozen=True)
class Graph:
    """One graph, as a PyTorch module."""

    name: str
    module: nn.Module
    """It takes `inputs` in their order and gives `outputs`."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    batched: tuple[str, ...]
    """The inputs whose first dimension is the batch; that of the others is 1."""
    grouped: int | None = None
    """The module takes the inputs from this one on as one list."""

    def run(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Computes the outputs with PyTorch and returns them by their names."""
        with torch.inference_mode():
            results = self.module(*self.arguments(inputs))
        # Results are copied, because copies are ordinary tensors, and the exporter takes no others.
        return {name: result.clone() for name, result in zip(self.outputs, results, strict=True)}

    def arguments(self, inputs: dict[str, Tensor]) -> tuple[Tensor | list[Tensor], ...]:
        """Returns the module's arguments for named inputs."""
        values = [inputs[name] for name in self.inputs]
        return tuple(values) if self.grouped is None else (*values[: self.grouped], values[self.grouped :])


class _Encoder(nn.Module):
    def __init__(self, model: DaGAN) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        source = self.model.encode_source(image)
        features = source.features.appearance[-(self.model.generator.skips + 1) :]  # The decoder warps no finer ones.
        return source.keypoints.value, source.keypoints.jacobian, source.small, *features, *source.features.queries


class _Keypoints(nn.Module):
    def __init__(self, model: DaGAN) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        keypoints = self.model.keypoints(image)
        return keypoints.value, keypoints.jacobian


class _Depth(nn.Module):
    def __init__(self, model: DaGAN) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor]:
        return (self.model.depth(image),)


class _Generator(nn.Module):
    def __init__(self, model: DaGAN) -> None:
        super().__init__()
        self.model = model

    def forward(self, value: Tensor, jacobian: Tensor, image: Tensor, rest: list[Tensor]) -> tuple[Tensor, Tensor]:
        source_value, source_jacobian, small, *features = rest
        scales = self.model.generator.skips + 1
        encoded = SourceFeatures(tuple(features[:scales]), tuple(features[scales:]))
        source = Source(image, None, Keypoints(source_value, source_jacobian), small, encoded)
        output = self.model.drive(source, Keypoints(value, jacobian))
        return output.image, output.deformation


def graphs_of(model: DaGAN) -> list[Graph]:
    """Returns the graphs of a model, which must be folded, in float32, on the CPU and in evaluation mode."""
    features = tuple(f"source_features_{i}" for i in range(model.generator.skips + 1))
    asking = {
        "none": (),
        "coarsest": ("source_query",),
        "all": tuple(f"source_query_{i}" for i in range(len(model.generator.fine_attention) + 1)),
    }
    encoded = ("source_value", "source_jacobian", "source_small", *features, *asking[model.config.attention])
    image, found = ("image",), ("value", "jacobian")
    driven = (*found, "source_image", *encoded)
    graphs = [
        Graph(ENCODER, _Encoder(model).eval(), image, encoded, image),
        Graph(KEYPOINTS, _Keypoints(model).eval(), image, found, image),
        Graph(GENERATOR, _Generator(model).eval(), driven, ("result", "deformation"), found, grouped=3),
    ]
    return [*graphs, Graph(DEPTH, _Depth(model).eval(), image, ("disparity",), image)] if model.config.use_depth else graphs


def example_inputs(model: DaGAN, graphs: list[Graph], seed: int = 0, batch: int = _EXAMPLE_BATCH) -> dict[str, dict[str, Tensor]]:
    """Returns inputs for each graph by its name: smooth pictures, and what the encoder and the detector make of them."""
    by_name = {graph.name: graph for graph in graphs}
    images = _pictures(model.config.image_size, batch, seed)
    source = {"source_image": images[:1], **by_name[ENCODER].run({"image": images[:1]})}
    driven = {**by_name[KEYPOINTS].run({"image": images}), **source}
    return {graph.name: driven if graph.name == GENERATOR else {"image": images} for graph in graphs}


def check_inputs(model: DaGAN, graphs: list[Graph]) -> dict[str, dict[str, Tensor]]:
    """Does as `example_inputs` with other pictures and another batch, which a graph that took a size for a constant cannot compute."""
    return example_inputs(model, graphs, seed=1, batch=_CHECK_BATCH)


def _pictures(size: int, batch: int, seed: int) -> Tensor:
    """Draws soft random blotches. White noise would look like nothing on which a model was trained."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, 8, 8, generator=generator)
    return nn.functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False).clamp(0, 1)
