"""Attention between depth and appearance (docs/method.md#cross-modal-attention). Legend: B batch, C channels, N = h w places."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CrossModalAttention(nn.Module):
    """Every place asks with its depth features which places of the warped appearance to take from.

    out = gamma * softmax(query . key) value + features; no 1/sqrt(d); gamma is learnt and starts at 0.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def encode_query(self, depth_features: Tensor) -> Tensor:
        """B x C x h x w -> B x C/8 x h x w; depends on the source alone."""
        return F.relu(self.query(depth_features))

    def forward(self, query: Tensor, features: Tensor) -> Tensor:
        """query: B x C/8 x h x w from `encode_query`; features: warped appearance B x C x h x w -> the same shape."""

        def places(x: Tensor) -> Tensor:
            # B 1 N C: four dimensions, as exporters need. cuDNN's attention wants channels side by side, a batch of one
            # query repeated for all frames written out too; in channels last they lie so already.
            return x.flatten(2).transpose(1, 2)[:, None].contiguous()

        key, value = F.relu(self.key(features)), F.relu(self.value(features))
        attended = F.scaled_dot_product_attention(places(query.to(key.dtype)), places(key), places(value), scale=1.0)
        attended = attended[:, 0].transpose(1, 2).reshape(features.shape)
        return self.gamma.to(attended.dtype) * attended + features
