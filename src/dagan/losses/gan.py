"""The losses of stage 2 of training: perceptual, of crops of mouth and eyes, adversarial, and on keypoints (docs/method.md#losses).

Frozen networks give the features of the perceptual loss, of the crops, and of LPIPS. They are VGG-19, VGG-16, AlexNet and SqueezeNet 1.1,
under torchvision's names. They take B x 3 x H x W in [0, 1] and give the feature maps of the named layers, finest first. The perceptual
loss is the L1 between such maps on an image pyramid. Mouth and eyes are also cut out and enlarged, because people look at them, and they
are only some 2 % of the image. The adversarial losses are of least squares, with feature matching. The losses on keypoints are
equivariance of positions and Jacobians, guidance by landmarks, and a least distance.

Legend: B batch, K keypoints, P landmarks, H W image.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dagan.checks import text_path
from dagan.errors import InputError
from dagan.geometry import ThinPlateTransform, coordinate_grid, inverse_2x2, sample
from dagan.models.blocks import BandLimitedDown
from dagan.models.keypoints import Keypoints

FeatureName = Literal["vgg19", "squeezenet", "vgg16", "alexnet"]
Pyramid = Literal["average", "band-limited"]
SQUEEZENET = Path(__file__).parent / "bundled" / "squeezenet1_1_imagenet_fp16.safetensors"
VGG19_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
VGG19_MEGABYTES = 548
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)
_VGG19 = (64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512)


class _Fire(nn.Module):
    def __init__(self, channels_in: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels_in, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


def _vgg(plan: tuple[int | str, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for width in plan:
        if isinstance(width, str):
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


def _vgg19() -> tuple[nn.Sequential, tuple[int, ...]]:
    return _vgg(_VGG19), (1, 6, 11, 20, 29)  # These are relu1_1, 2_1, 3_1, 4_1 and 5_1.


def _vgg16() -> tuple[nn.Sequential, tuple[int, ...]]:
    return _vgg(_VGG16), (3, 8, 15, 22, 29)  # These are relu1_2, 2_2, 3_3, 4_3 and 5_3, the layers of LPIPS.


def _alexnet() -> tuple[nn.Sequential, tuple[int, ...]]:
    layers = nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )  # fmt: skip
    return layers, (1, 4, 7, 9, 11)


def _squeezenet() -> tuple[nn.Sequential, tuple[int, ...]]:
    def pool() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    layers = nn.Sequential(
        nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool(), _Fire(64, 16, 64), _Fire(128, 16, 64), pool(), _Fire(128, 32, 128),
        _Fire(256, 32, 128), pool(), _Fire(256, 48, 192), _Fire(384, 48, 192), _Fire(384, 64, 256), _Fire(512, 64, 256),
    )  # fmt: skip
    return layers, (1, 4, 7, 9, 10, 11, 12)  # These are the seven layers of LPIPS.


_NETWORKS = {"vgg19": _vgg19, "vgg16": _vgg16, "alexnet": _alexnet, "squeezenet": _squeezenet}


class FeatureNetwork(nn.Module):
    """A frozen network that gives features. `file` holds its weights (safetensors, or a state dict that loads with weights_only).

    Raises InputError when the file is missing or does not fit. Without a file SqueezeNet's bundled weights are taken, and VGG-19's are
    fetched once (about 548 MB).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: FeatureName, file: str | Path | None = None) -> None:
        super().__init__()
        self.features, self.taps = _NETWORKS[name]()
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None], persistent=False)
        if file is None:
            if name not in ("squeezenet", "vgg19"):
                raise InputError(f"{name} features need their weights: give a state dict of torchvision's network")
            file = SQUEEZENET if name == "squeezenet" else _fetch_vgg19()
        state = read_state(Path(file), "the feature network's weights")
        wanted = self.features.state_dict()
        found = {k.removeprefix("features."): v.float() for k, v in state.items() if k.startswith("features.")}
        missing = [k for k, v in wanted.items() if k not in found or found[k].shape != v.shape]
        if missing:
            raise InputError(f"{file} is not a {name} state dict: {len(missing)} entries differ, first features.{missing[0]}")
        self.features.load_state_dict({k: found[k] for k in wanted})
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FeatureNetwork:
        """Stays in evaluation mode, because the network only measures."""
        return super().train(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        x = (image - self.mean) / self.std
        outputs = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.taps:
                outputs.append(x)
        return outputs


def read_state(file: Path, what: str) -> dict[str, Tensor]:
    """Reads the state dict in a safetensors file, or in one of `torch.save` without executing anything from it.

    Raises InputError, saying `what` was wanted, for a file that is missing or anything else.
    """
    if not file.is_file():
        raise InputError(f"{file} does not exist: give the file of {what}")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            with text_path(file) as name:
                return load_file(name)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = type(error).__name__
        raise InputError(f"{file} cannot be read as weights ({reason}): give a safetensors file or a plain state dict") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{file} holds no plain state dict: give a safetensors file or a state dict as {what}")
    return state


def _fetch_vgg19() -> Path:
    target = Path(torch.hub.get_dir()) / "checkpoints" / VGG19_URL.rsplit("/", 1)[1]
    if not target.is_file():
        print(f"fetching VGG-19 ({VGG19_MEGABYTES} MB) from {VGG19_URL} to {target}, checked by its checksum", file=sys.stderr)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(VGG19_URL, str(target), hash_prefix="dcbb9e9d")
        except (OSError, RuntimeError) as error:
            raise InputError(f"VGG-19 could not be fetched ({error}): set perceptual_file, or perceptual_features to squeezenet") from None
    return target


class PerceptualLoss(nn.Module):
    """Compares a result with a target, B x 3 x H x W in [0, 1], by one number: L1 over layers and the scales 1, 1/2, .. of the pyramid.

    With `relative`, the distance of each layer is divided by the target's mean activation there. Layers then weigh alike in networks
    whose activations differ by orders of magnitude, as SqueezeNet's do. Without it, it is the paper's plain sum. The pyramid is made of
    means ("average"), or by band-limited downsampling of the full images (docs/method.md#building-blocks).
    """

    def __init__(self, network: FeatureNetwork, scales: int = 4, relative: bool = False, pyramid: Pyramid = "average") -> None:
        super().__init__()
        self.network = network
        self.scales = scales
        self.relative = relative
        factors = [2**i for i in range(1, scales)]
        smaller = [BandLimitedDown(3, f) if pyramid == "band-limited" else nn.AvgPool2d(f) for f in factors]
        self.downs = nn.ModuleList([nn.Identity(), *smaller])

    def forward(self, result: Tensor, target: Tensor) -> Tensor:
        total = result.new_zeros((), dtype=torch.float32)
        for down in self.downs:
            with torch.no_grad():
                targets = self.network(down(target))
            for found, wanted in zip(self.network(down(result)), targets, strict=True):
                distance = (found - wanted).abs().mean(dtype=torch.float32)
                total = total + (distance / (wanted.abs().mean(dtype=torch.float32) + 1e-6) if self.relative else distance)
        return total


def discriminator_loss(real: Tensor, generated: Tensor) -> Tensor:
    """Returns the mean of (1 - D(real))^2 + D(generated)^2, for predictions of any shape."""
    return ((1 - real.float()) ** 2 + generated.float() ** 2).mean()


def generator_loss(generated: Tensor) -> Tensor:
    """Returns the mean of (1 - D(generated))^2."""
    return ((1 - generated.float()) ** 2).mean()


def feature_matching(real: list[Tensor], generated: list[Tensor]) -> Tensor:
    """Sums over layers the mean L1 between the discriminator's features. Those of the real image get no gradient."""
    terms = [(r.detach().float() - g.float()).abs().mean() for r, g in zip(real, generated, strict=True)]
    return torch.stack(terms).sum()


# The mouth, and the strip of both eyes, are enlarged to this height and width in pixels.
MOUTH, EYES = (64, 64), (48, 96)
# Half the height and half the width that are cut out, relative to the face's height.
MOUTH_REACH, EYES_REACH = (0.22, 0.22), (0.17, 0.34)
# With this weight the L1 is relative, as the perceptual distance is: features are divided by their means, and the mean of colours is about
# a third.
L1 = 3.0


class FaceCrops(nn.Module):
    """Cuts out mouths and strips of both eyes and enlarges them to MOUTH and EYES. It takes images and landmarks, B x P x 2 in [-1, 1].

    `points` are the mesh points that the P landmarks are, in their order. Where landmarks are NaN, the middle of the image is cut out.
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
    """Compares mouths and eyes of a result and a target, B x 3 x H x W in [0, 1], by one number.

    It needs the target's landmarks, B x P x 2 in [-1, 1]. `network` gives features for the perceptual part; None leaves that out.
    `points` are as in FaceCrops.
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


def equivariance(driving: Keypoints, transformed: Keypoints, transform: ThinPlateTransform) -> tuple[Tensor, Tensor]:
    """Returns the losses of positions and of Jacobians. Keypoints of the transformed frame, mapped by the transform, must be the frame's.

    They are mean |p - T(p')| and mean |1 - J^-1 T'(p') J'|.
    """
    value = (driving.value - transform.warp_coordinates(transformed.value)).abs().mean()
    mapped = transform.jacobian(transformed.value) @ transformed.jacobian
    identity = torch.eye(2, device=mapped.device)
    return value, (identity - inverse_2x2(driving.jacobian) @ mapped).abs().mean()


def guidance(value: Tensor, points: Tensor, openings: Sequence[tuple[int, int]] = ()) -> Tensor:
    """Returns the mean |p - q| of keypoints and the landmarks that guide them, both B x K x 2. Landmarks that are NaN do not count.

    `openings` are pairs of places whose difference is compared too; its mean is added. A lid that is off by its eye's opening costs
    little as a place, but a whole blink as an opening. This loss is not the paper's: reconstruction losses do not find eyelids and lips
    before everything else is right.
    """
    loss = _mean_distance(value, points)
    if openings:
        first, second = ([pair[i] for pair in openings] for i in (0, 1))
        loss = loss + _mean_distance(value[:, first] - value[:, second], points[:, first] - points[:, second])
    return loss


def _mean_distance(value: Tensor, points: Tensor) -> Tensor:
    known = points.isfinite()
    difference = (value - torch.where(known, points, 0)).abs() * known
    return difference.sum() / known.sum().clamp(min=1)


def keypoint_distance(value: Tensor, alpha: float = 0.2) -> Tensor:
    """Returns the mean of max(0, alpha - |p_i - p_j|) over pairs i != j of positions, B x K x 2.

    It is a hinge on the distance itself, because the form with a sign has no gradient (docs/method.md#faults-that-are-not-repeated).
    """
    count = value.shape[1]
    first, second = torch.triu_indices(count, count, offset=1, device=value.device)
    # The small number keeps the gradient of the root finite where two keypoints coincide.
    distance = ((value[:, first] - value[:, second]).square().sum(-1) + 1e-8).sqrt()
    return (alpha - distance).clamp(min=0).mean()
