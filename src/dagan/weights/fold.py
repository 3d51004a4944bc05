"""Makes models ready for inference: normalisations that are constants then are multiplied into the convolutions beside them."""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

from torch import nn
from torch.nn.utils import parametrize, skip_init
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dagan.models.dagan import DaGAN

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
