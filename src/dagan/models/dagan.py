"""The whole model (docs/method.md#overview): depth network, keypoint detector, dense motion and generator.

`fold` makes a model ready for inference: normalisations that are constants then are multiplied into the convolutions beside them.

Legend: B batch, K keypoints, H W image, h w motion size.
"""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, skip_init
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dagan.config import ModelConfig
from dagan.errors import InputError
from dagan.geometry import ThinPlateTransform
from dagan.models.depth import DepthNetwork
from dagan.models.generator import Generator, SourceFeatures
from dagan.models.keypoints import DenseMotion, KeypointDetector, Keypoints, on_landmarks


@dataclass(frozen=True)
class Source:
    """Everything that depends on the source alone."""

    image: Tensor
    """The source image, B x 3 x H x W."""
    disparity: Tensor | None
    """Its disparity, B x 1 x H x W; None for a model that does not look at depth."""
    keypoints: Keypoints
    """Its keypoints."""
    small: Tensor
    """The image at motion size."""
    features: SourceFeatures
    """What the generator keeps of it."""


@dataclass(frozen=True)
class Output:
    """What the model draws."""

    image: Tensor
    """The result, B x 3 x H x W in [0, 1]."""
    deformation: Tensor
    """Where each place of the result looks in the source, B x h x w x 2."""
    occlusion: Tensor
    """What can be seen, B x 1 x h x w; 1 is visible."""
    mask: Tensor
    """The shares of the background and of the keypoints' motions, B x (K + 1) x h x w."""
    warped: Tensor
    """The source image moved by the deformation."""


@dataclass(frozen=True)
class Reconstruction:
    """What a training step needs."""

    output: Output
    """What was drawn."""
    source: Source
    """The encoded source."""
    origin: Keypoints
    """The keypoints that the detector found in the source frame, even where landmarks were used for drawing."""
    driving: Keypoints
    """The keypoints that it found in the driving frame, likewise."""
    transformed: Keypoints | None
    """The keypoints that it found in the transformed driving frame, if there was a transform."""


_MEAN, _DEVIATION = 0.5, 0.2  # Those of pictures, roughly.
_FLAT = 1e-3  # A map that deviates by less than about this shows nothing, so it is not widened to noise.


def normalised(disparity: Tensor) -> Tensor:
    """Brings each disparity map, B x 1 x H x W, to the mean and the standard deviation that pictures have."""
    away = disparity - disparity.mean((2, 3), keepdim=True)
    return _MEAN + _DEVIATION * away / (away.square().mean((2, 3), keepdim=True).sqrt() + _FLAT)


class DaGAN(nn.Module):
    """The model of one configuration, freshly initialised. `dagan.load` gives a trained one, in evaluation mode.

    `compute_dtype` is the precision of convolutions and attention in `depth`, `keypoints`, `encode_source` and `drive`. Coordinates
    always stay in float32. int8 is for engines, which quantise what tolerates it; here it means bfloat16. `forward` leaves precision to
    the training loop.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.folded = False  # `fold` sets this in the models it makes, which can be neither trained nor saved.
        factor = config.image_size // config.motion_size
        self.depth_network = DepthNetwork(config.depth) if config.use_depth else None
        self.keypoint_detector = KeypointDetector(config.keypoints, factor, config.depth_in_keypoints)
        landmarks = len(config.keypoints.landmarks)
        self.dense_motion = DenseMotion(config.motion, config.keypoints.count, factor, config.align_corners, landmarks)
        self.generator = Generator(config.generator, config.attention, config.align_corners, landmarks)

    @torch.inference_mode()
    def depth(self, image: Tensor) -> Tensor:
        """Estimates disparity, B x 1 x H x W in (0, 1), of images B x 3 x H x W in [0, 1]. Near is large.

        Raises InputError for another shape, and for a model without a depth network.
        """
        self._check(image)
        if self.depth_network is None:
            raise InputError(f"model {self.config.name!r} has no depth network: use one whose name does not end in -rgb")
        with self._precision(image):
            return self.depth_network(image, scales=1)[0]

    @torch.inference_mode()
    def keypoints(self, image: Tensor) -> Keypoints:
        """Finds the keypoints of images B x 3 x H x W in [0, 1], with the help of their depth. Raises InputError for another shape."""
        self._check(image)
        with self._precision(image):
            return self._found(image, self._disparity(image) if self.config.depth_in_keypoints else None)

    @torch.inference_mode()
    def encode_source(self, image: Tensor) -> Source:
        """Computes what depends on the source image alone, B x 3 x H x W in [0, 1]. Raises InputError for another shape."""
        self._check(image)
        with self._precision(image):
            disparity = self._disparity(image)
            return self._encode(image, disparity, self._found(image, disparity))

    @torch.inference_mode()
    def drive(self, source: Source, keypoints: Keypoints) -> Output:
        """Draws the source in the pose of a batch of keypoints. A single source serves all. Raises InputError if batches disagree."""
        sources, frames = source.image.shape[0], keypoints.value.shape[0]
        if sources not in (1, frames):
            raise InputError(f"{sources} sources for {frames} driving frames: use one source, or one for each frame")
        with self._precision(source.image):
            return self._drive(source, keypoints)

    def forward(
        self, source: Tensor, driving: Tensor, transform: ThinPlateTransform | None = None, landmarks: Tensor | None = None,
        *, separate_batches: bool = False, estimate_transformed: bool = False,
    ) -> Reconstruction:  # fmt: skip
        """Rebuilds the driving frame from the source frame, both B x 3 x H x W, for training.

        With `transform`, the keypoints of the transformed driving frame are found too, for the equivariance losses. The depth network is
        used as it is and gets no gradient (stage 2 of training). `landmarks`, B x 2 x L x 2 of both frames, are used for drawing in
        place of the first L keypoints, where they are finite.

        Source, driving and transformed frames go through the detector in one batch, whose statistics cover all of them, or with
        `separate_batches` in a batch each. The transformed frame has the transformed depth map; with `estimate_transformed` the depth
        network finds it anew. These two are the paper's way, and cost time.
        """
        images = torch.cat([source, driving])
        sees_depth = self.config.depth_in_keypoints
        with torch.no_grad():
            disparity = self._disparity(images if sees_depth else source)
        if transform is not None:
            moved_frame = transform.warp_image(driving)
            images = torch.cat([images, moved_frame])
            if disparity is not None and sees_depth:
                with torch.no_grad():
                    again = self._disparity(moved_frame) if estimate_transformed else transform.warp_image(disparity[len(source) :])
                assert again is not None
                disparity = torch.cat([disparity, again])
        batch = len(source)
        if separate_batches:
            depths = [None] * (len(images) // batch) if disparity is None else disparity.split(batch)
            parts = [self._found(image, depth) for image, depth in zip(images.split(batch), depths, strict=sees_depth)]
        else:  # One pass has larger matrices, too.
            keypoints = self._found(images, disparity)
            parts = [keypoints[i : i + batch] for i in range(0, len(images), batch)]
        origin, moved = parts[:2]
        if landmarks is not None:
            origin, moved = (on_landmarks(part, landmarks[:, i]) for i, part in enumerate(parts[:2]))
        encoded = self._encode(source, None if disparity is None else disparity[:batch], origin)
        output = self._drive(encoded, moved)
        return Reconstruction(output, encoded, parts[0], parts[1], parts[2] if transform is not None else None)

    def _disparity(self, image: Tensor) -> Tensor | None:
        """Returns the disparity of images, or None where nothing that is drawn depends on it."""
        if self.depth_network is None or not (self.config.depth_in_keypoints or self.generator.attends):
            return None
        disparity = self.depth_network(image, scales=1)[0]
        return normalised(disparity) if self.config.normalise_depth else disparity

    def _found(self, image: Tensor, disparity: Tensor | None) -> Keypoints:
        return self.keypoint_detector(image, disparity if self.config.depth_in_keypoints else None)

    def _encode(self, image: Tensor, disparity: Tensor | None, keypoints: Keypoints) -> Source:
        return Source(image, disparity, keypoints, self.dense_motion.down(image), self.generator.encode(image, disparity))

    def _drive(self, source: Source, keypoints: Keypoints) -> Output:
        frames = keypoints.value.shape[0]
        small = source.small.expand(frames, -1, -1, -1)
        origin = Keypoints(source.keypoints.value.expand(frames, -1, -1), source.keypoints.jacobian.expand(frames, -1, -1, -1))
        motion = self.dense_motion(small, origin, keypoints)
        image, warped = self.generator.decode(source.features, source.image, motion, keypoints.value)
        return Output(image, warped=warped, **{f.name: getattr(motion, f.name) for f in fields(motion)})

    def _precision(self, image: Tensor) -> AbstractContextManager[None]:
        dtype = torch.bfloat16 if self.compute_dtype == torch.int8 else self.compute_dtype
        return torch.autocast(image.device.type, dtype=dtype, enabled=dtype != torch.float32)

    def _check(self, image: Tensor) -> None:
        size = self.config.image_size
        if image.ndim != 4 or tuple(image.shape[1:]) != (3, size, size) or not image.is_floating_point():
            wanted = f"floating point B x 3 x {size} x {size} in [0, 1]"
            raise InputError(f"images are {tuple(image.shape)} {image.dtype}: model {self.config.name!r} takes {wanted}")


# Each pair is a convolution and the batch norm that directly follows it, by their names in `models.blocks` and `models.depth`. The first
# norm of a pre-activation residual block follows a sum and comes before a ReLU, so there is no convolution that it could go into.
_PAIRS = (("conv", "norm"), ("conv1", "norm2"), ("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("0", "1"))


def fold(model: DaGAN) -> DaGAN:
    """Returns a model that computes the same in fewer steps: batch norms go into convolutions, and spectral norms into weights.

    It is a new model in evaluation mode, which can be neither trained nor saved. `model` stays as it is, and both share the tensors that
    folding does not change. Results differ by rounding.
    """
    shared: dict[int, Any] = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    folded = copy.deepcopy(model, shared).eval()
    for module in list(folded.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d) and parametrize.is_parametrized(child, "weight"):
                setattr(module, name, _plain(child))
        for first, second in _PAIRS:
            convolution, norm = getattr(module, first, None), getattr(module, second, None)
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, first, fuse_conv_bn_eval(convolution, norm))
                setattr(module, second, nn.Identity())
    folded.folded = True
    return folded.eval()  # The new identities are put into evaluation mode too.


def _plain(convolution: nn.Conv2d) -> nn.Conv2d:
    """Returns the convolution with the weight that it computes from its parameters.

    `parametrize.remove_parametrizations` would change the class of the convolution, which copies share with the original.
    """
    c = convolution
    plain = skip_init(
        nn.Conv2d, c.in_channels, c.out_channels, c.kernel_size, c.stride, c.padding, c.dilation, c.groups, c.bias is not None,
        c.padding_mode, device=c.weight.device, dtype=c.weight.dtype,
    )  # fmt: skip
    plain.weight = nn.Parameter(c.weight.detach().clone())
    plain.bias = c.bias
    return plain.eval()
