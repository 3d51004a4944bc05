"""The generator, which warps features (docs/method.md#generator), and the discriminator that judges its images.

The generator has encoders of appearance and depth, warping, attention between the two (docs/method.md#cross-modal-attention), and one of
three decoders (pyramid, residual, spade). The discriminator judges patches and sees heatmaps of the driving keypoints
(docs/method.md#discriminator).

Legend: B batch, C channels, H W image, h w size of the dense motion. Scale i has 1/2^i of the image's size and
min(max_width, width * 2^i) channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dagan.config import Attention, GeneratorConfig
from dagan.geometry import gaussian_heatmap, resize, resize_grid, sample
from dagan.models.blocks import DownBlock, ResidualBlock, SameBlock, SpadeBlock, UpBlock
from dagan.models.keypoints import Motion


class CrossModalAttention(nn.Module):
    """Each place chooses, by its depth features, from which places of the warped appearance to take features.

    It computes gamma * softmax(query . key) value, without the factor 1/sqrt(d). gamma is learnt and starts at 0. With `keys`, appearance
    is first averaged to a map of at most that side: N places then have keys^2 to choose from, in place of N.
    """

    def __init__(self, channels: int, channels_out: int | None = None, keys: int | None = None) -> None:
        super().__init__()
        self.keys = keys
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels_out or channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def encode_query(self, depth_features: Tensor) -> Tensor:
        """Turns depth features, B x C x h x w, into a query, B x C/8 x h x w. It depends on the source alone."""
        return F.relu(self.query(depth_features))

    def asked(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns keys, B x C/8 x h' x w', and values, B x C' x h' x w', of warped appearance, B x C x h x w."""
        if self.keys is not None:
            features = F.avg_pool2d(features, _reduction(features.shape[-1], self.keys))
        return F.relu(self.key(features)), F.relu(self.value(features))

    def forward(self, query: Tensor, features: Tensor) -> Tensor:
        """Returns attended features, B x C' x h x w, times gamma.

        `query`, B x C/8 x h x w, comes from `encode_query`, and `features`, B x C x h x w, are warped appearance.
        """

        def places(x: Tensor) -> Tensor:
            # The result is B 1 N C, because exporters need four dimensions. cuDNN's attention needs channels that lie side by side, also
            # in a query of batch one that is repeated for all frames. In channels last they lie so already.
            return x.flatten(2).transpose(1, 2)[:, None].contiguous()

        key, value = self.asked(features)
        attended = F.scaled_dot_product_attention(places(query.to(key.dtype)), places(key), places(value), scale=1.0)
        attended = attended[:, 0].transpose(1, 2).unflatten(2, (query.shape[-2], query.shape[-1]))
        return self.gamma.to(attended.dtype) * attended


def _reduction(side: int, most: int) -> int:
    """Returns the smallest divisor of `side` that leaves at most `most`."""
    return next(factor for factor in range(1, side + 1) if side % factor == 0 and side // factor <= most)


@dataclass(frozen=True)
class SourceFeatures:
    """What the generator computes once from a source image and its depth, to draw every driving frame from."""

    appearance: tuple[Tensor, ...]
    """The features of scales 0 (the finest) to downs."""
    queries: tuple[Tensor, ...]
    """The queries of the scales that attend, finest first; there are none in a model without attention."""


class Encoder(nn.Module):
    """A same block, then down blocks. It returns the features of every scale, finest first."""

    def __init__(self, channels_in: int, widths: list[int], kernel: int) -> None:
        super().__init__()
        self.first = SameBlock(channels_in, widths[0], kernel)
        self.downs = nn.ModuleList(DownBlock(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        features = [self.first(x)]
        for down in self.downs:
            features.append(down(features[-1]))
        return tuple(features)


class ResidualDecoder(nn.Module):
    """Decoder A, which is the paper's: residual blocks, up blocks, a 7 x 7 convolution and a sigmoid."""

    def __init__(self, config: GeneratorConfig, widths: list[int]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*[ResidualBlock(widths[-1]) for _ in range(config.blocks)])
        self.ups = nn.Sequential(*[UpBlock(widths[i + 1], widths[i]) for i in reversed(range(config.downs))])
        self.final = nn.Conv2d(widths[0], 3, 7, padding=3)
        self.drawn = widths[:-1]

    def forward(self, features: list[Tensor], warped: Tensor) -> Tensor:
        """Draws from the coarsest features. Those of finer scales, where there are any, are added to the decoder's maps of that size."""
        x = self.blocks(features[-1])
        for up, added in zip(self.ups, _coarse_to_fine(features, len(self.ups)), strict=True):
            x = up(x) if added is None else up(x) + added
        return torch.sigmoid(self.final(x).float())


class SpadeDecoder(nn.Module):
    """Decoder B: SPADE blocks, guided by four compressed feature channels and the warped and occluded source image."""

    def __init__(self, config: GeneratorConfig, widths: list[int]) -> None:
        super().__init__()
        channels, hidden, guidance = widths[-1], 2 * config.max_width, 4 + 3
        self.compress = nn.Conv2d(channels, 4, 3, padding=1)
        self.widen = nn.Conv2d(channels, hidden, 3, padding=1)
        self.middle = nn.ModuleList(SpadeBlock(hidden, hidden, guidance) for _ in range(3))
        self.ups = nn.ModuleList([SpadeBlock(hidden, hidden // 2, guidance), SpadeBlock(hidden // 2, hidden // 8, guidance)])
        self.final = nn.Conv2d(hidden // 8, 3, 3, padding=1)
        self.drawn = [hidden // 8, hidden // 2]

    def forward(self, features: list[Tensor], warped: Tensor) -> Tensor:
        """Draws from the coarsest features. Those of finer scales, where there are any, are added to the decoder's maps of that size."""
        small = F.interpolate(self.compress(features[-1]), size=warped.shape[-2:], mode="nearest")
        guidance = torch.cat([small, warped.to(small.dtype)], dim=1)
        x = self.widen(features[-1])
        for block in self.middle:
            x = block(x, guidance)
        for block, added in zip(self.ups, _coarse_to_fine(features, len(self.ups)), strict=True):
            x = block(F.interpolate(x, scale_factor=2, mode="nearest"), guidance)
            x = x if added is None else x + added
        return torch.sigmoid(self.final(F.leaky_relu(x, 0.2)).float())


def _coarse_to_fine(features: list[Tensor], count: int) -> list[Tensor] | list[None]:
    """Returns the features of all scales but the coarsest, coarse to fine, or so many times None where there are none."""
    return features[-2::-1] if len(features) > 1 else [None] * count


class PyramidDecoder(nn.Module):
    """The decoder of the lite models.

    Residual blocks work at the coarsest scale. Each finer scale is joined with the source features that were warped at that scale. A head
    at half size predicts colours and a weight, with which colours and the warped source image are blended: so detail comes from the
    warped source. Warped detail at every scale replaces the width that decoder A spends on carrying it through one 64 x 64 map.
    `guides` is the number of channels of heatmaps that follow the warped features of the joined scales.
    """

    def __init__(self, config: GeneratorConfig, widths: list[int], guides: int = 0) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*[ResidualBlock(widths[-1]) for _ in range(config.blocks)])
        scales = list(reversed(range(1, config.downs)))
        self.ups = nn.ModuleList(UpBlock(widths[i + 1], widths[i]) for i in scales)
        self.joins = nn.ModuleList(SameBlock(2 * widths[i] + guides, widths[i]) for i in scales)
        self.final = nn.Conv2d(widths[1] + 12, 16, 3, padding=1)
        assert self.final.bias is not None
        with torch.no_grad():  # With this bias the blend starts at 0.73, near the warped source.
            self.final.bias[12:].fill_(1.0)

    def forward(self, features: list[Tensor], warped: Tensor) -> Tensor:
        x = self.blocks(features[-1])
        for up, join, skip in zip(self.ups, self.joins, reversed(features[:-1]), strict=True):
            x = join(up(x, skip))
        x = torch.cat([x, F.pixel_unshuffle(warped, 2).to(x.dtype)], dim=1)
        out = F.pixel_shuffle(self.final(x), 2).float()
        blend = torch.sigmoid(out[:, 3:])
        return blend * warped.float() + (1 - blend) * torch.sigmoid(out[:, :3])


_DECODERS: dict[str, type[ResidualDecoder] | type[SpadeDecoder]] = {"residual": ResidualDecoder, "spade": SpadeDecoder}


class Warp(nn.Module):
    """Looks an image or a map up where the deformation says."""

    def __init__(self, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners

    def forward(self, x: Tensor, deformation: Tensor, occlusion: Tensor | None = None) -> Tensor:
        """Returns B x C x H x W for x (B or 1 x C x H x W) and a deformation B x h x w x 2, times the occlusion B x 1 x h x w."""
        size = (x.shape[-2], x.shape[-1])
        grid = resize_grid(deformation, size, align_corners=self.align_corners)
        warped = sample(x.expand(grid.shape[0], -1, -1, -1), grid, align_corners=self.align_corners)
        return warped if occlusion is None else warped * resize(occlusion, size).to(warped.dtype)


class Generator(nn.Module):
    """Draws the source in other poses: `encode` is called once for a source, and `decode` once for a driving frame."""

    def __init__(self, config: GeneratorConfig, attention: Attention, align_corners: bool, landmarks: int = 0) -> None:
        """`landmarks` is the number of keypoints, the first ones, that stand on landmarks."""
        super().__init__()
        self.config = config
        self.warp = Warp(align_corners)
        widths = [min(config.max_width, config.width * 2**i) for i in range(config.downs + 1)]
        pyramid = config.decoder == "pyramid"
        self.pyramid = pyramid
        # The decoder is given so many finer scales than the coarsest. The paper's decoders need them only where attention is at all scales.
        self.skips = config.downs - 1 if pyramid else config.downs if attention == "all" else 0
        self.attends = attention != "none"
        # The lite models' depth map is smooth. One scale above the coarsest features that ask it loses nothing, and costs less.
        first = config.downs - (self.skips if attention == "all" else 1) if pyramid else 0
        self.depth_reduction = 2**first
        self.appearance = Encoder(3, widths, 3 if pyramid else 7)
        self.depth = Encoder(1, widths[first:], 3 if pyramid else 7) if self.attends else None
        self.attention = CrossModalAttention(widths[-1]) if self.attends else None
        # `guides` is the number of driving heatmaps that the decoder gets. They are put beside the warped features of finer scales, and
        # added to the coarsest through a convolution, which starts at zero.
        self.guides = 0 if config.landmark_variance is None else landmarks
        decoder = PyramidDecoder(config, widths, self.guides) if pyramid else _DECODERS[config.decoder](config, widths)
        self.decoder = decoder
        self.guide = nn.Conv2d(self.guides, widths[-1], 3, padding=1) if self.guides else None
        if self.guide is not None:
            nn.init.zeros_(self.guide.weight)
        # What finer scales attend to is added to the pyramid's warped features, or to the decoder's own maps.
        finer = range(config.downs - self.skips, config.downs) if attention == "all" else ()
        drawn = widths if isinstance(decoder, PyramidDecoder) else decoder.drawn
        self.fine_attention = nn.ModuleList(CrossModalAttention(widths[i], drawn[i], config.attention_keys) for i in finer)

    def encode(self, image: Tensor, disparity: Tensor | None) -> SourceFeatures:
        """Encodes the source image, B x 3 x H x W, and its disparity, B x 1 x H x W, which is None for models without depth."""
        queries: tuple[Tensor, ...] = ()
        if self.depth is not None and disparity is not None:
            depth = self.depth(F.avg_pool2d(disparity, self.depth_reduction))
            asking = self._attentions()
            queries = tuple(one.encode_query(x) for one, x in zip(asking, depth[len(depth) - len(asking) :], strict=True))
        return SourceFeatures(self.appearance(image), queries)

    def _attentions(self) -> list[CrossModalAttention]:
        """Returns the attentions, finest first."""
        return cast(list[CrossModalAttention], [*self.fine_attention, *([] if self.attention is None else [self.attention])])

    def decode(self, source: SourceFeatures, image: Tensor, motion: Motion, driving: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the result and the warped source image, both B x 3 x H x W in [0, 1]. `driving` are keypoints, B x K x 2."""
        finest = len(source.appearance) - 1 - self.skips
        features = [self.warp(level, motion.deformation, motion.occlusion) for level in source.appearance[finest:]]
        if source.queries:
            features = self._attended(source.queries, features, motion)
        if self.guide is not None:
            features = self._guided(features, driving[:, : self.guides].float())
        # SPADE is guided by what can be seen. The other decoders blend with the warped image or ignore it.
        warped = self.warp(image, motion.deformation, motion.occlusion if isinstance(self.decoder, SpadeDecoder) else None)
        return self.decoder(features, warped), warped

    def _attended(self, queries: tuple[Tensor, ...], features: list[Tensor], motion: Motion) -> list[Tensor]:
        """Adds what queries found to warped features. Decoders other than the pyramid get at finer scales only what was found."""
        attentions, first = self._attentions(), len(features) - len(queries)
        attended = features[:first]
        for attention, query, found in zip(attentions, queries, features[first:], strict=True):
            asking = self.warp(query, motion.deformation) if self.config.align_depth else query
            added = attention(asking.expand(found.shape[0], -1, -1, -1), found)
            attended.append(added + found if self.pyramid or attention is self.attention else added)
        return attended

    def _guided(self, features: list[Tensor], landmarks: Tensor) -> list[Tensor]:
        """Adds heatmaps of driving landmarks, B x L x 2, to the features: they are added to the coarsest and appended to finer ones."""
        assert self.guide is not None
        assert self.config.landmark_variance is not None
        *finer, coarsest = features
        maps = [gaussian_heatmap(landmarks, (f.shape[-2], f.shape[-1]), self.config.landmark_variance).to(f.dtype) for f in finer]
        # A narrow blob would fall between the places of the coarsest scale. Averaging the next finer one keeps it whole.
        coarsest = coarsest + self.guide(F.avg_pool2d(maps[-1], 2)).to(coarsest.dtype)
        return [*(torch.cat(pair, dim=1) for pair in zip(finer, maps, strict=True)), coarsest]


class Discriminator(nn.Module):
    """Judges images, B x 3 x H x W, given keypoint positions, B x K x 2.

    It returns the features of its four convolutions and a prediction, B x 1 x h x w.
    """

    def __init__(self, keypoints: int, width: int = 64, max_width: int = 512, variance: float = 0.01) -> None:
        super().__init__()
        self.variance = variance
        widths = [3 + keypoints] + [min(max_width, width * 2**i) for i in range(4)]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 4) for a, b in pairwise(widths))
        self.norms = nn.ModuleList([nn.Identity(), *[nn.InstanceNorm2d(w, affine=True) for w in widths[2:]]])
        self.final = nn.Conv2d(widths[-1], 1, 1)

    def forward(self, image: Tensor, keypoints: Tensor) -> tuple[list[Tensor], Tensor]:
        heatmaps = gaussian_heatmap(keypoints.float(), (image.shape[-2], image.shape[-1]), self.variance)
        x = torch.cat([image, heatmaps.to(image.dtype)], dim=1)
        features = []
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = F.leaky_relu(norm(conv(x)), 0.2)
            if i < len(self.convs) - 1:
                x = F.avg_pool2d(x, 2)
            features.append(x)
        return features, self.final(x)
