import math

import torch

from dagan.losses.gan import CropLoss, FeatureNetwork

POINTS = (61, 291, 13, 14, 33, 263, 133, 362, 10, 152)
# Of a face 0.8 high in the middle of the picture: mouth, eyes, forehead and chin.
PLACES = torch.tensor(
    [[-0.1, 0.2], [0.1, 0.2], [0, 0.19], [0, 0.21], [-0.2, -0.2], [0.2, -0.2], [-0.1, -0.2], [0.1, -0.2], [0, -0.4], [0, 0.4]]
)


def changed(box: tuple[slice, slice]) -> float:
    """The loss of a picture that differs in one box of pixels from a smooth target of 128 x 128."""
    generator = torch.Generator().manual_seed(0)
    target = torch.nn.functional.interpolate(torch.rand(1, 3, 9, 9, generator=generator), size=128, mode="bilinear")
    result = target.clone()
    result[(slice(None), slice(None), *box)] = 1 - result[(slice(None), slice(None), *box)]
    return float(CropLoss(None, POINTS)(result, target, PLACES[None]))


def test_only_mouth_and_eyes_count() -> None:
    mouth, eyes = (slice(70, 82), slice(58, 70)), (slice(46, 55), slice(45, 83))
    assert changed((slice(0, 1), slice(0, 1))) == 0
    assert changed((slice(100, 128), slice(0, 128))) == 0  # below the chin
    assert changed(mouth) > 0.1
    assert changed(eyes) > 0.1


def test_unknown_landmarks_give_a_number_and_gradients() -> None:
    loss = CropLoss(None, POINTS)
    result = torch.rand(2, 3, 64, 64, requires_grad=True)
    value = loss(result, torch.rand(2, 3, 64, 64), torch.full((2, len(POINTS), 2), torch.nan))
    value.backward()
    assert math.isfinite(float(value.detach()))
    assert result.grad is not None
    assert bool(result.grad.isfinite().all())


def test_features_add_to_it(monkeypatch) -> None:
    monkeypatch.setattr(FeatureNetwork, "__init__", lambda self: torch.nn.Module.__init__(self))
    monkeypatch.setattr(FeatureNetwork, "forward", lambda self, image: [image.square()])
    a, b = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)
    plain, rich = CropLoss(None, POINTS)(a, b, PLACES[None]), CropLoss(FeatureNetwork(), POINTS)(a, b, PLACES[None])
    assert rich > plain
