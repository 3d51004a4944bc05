import math

import pytest
import torch

from dagan.errors import InputError
from dagan.models.depth import LOG_SCALE_BOUND, EgomotionConfig, EgomotionNetwork

WIDTHS = (8, 8, 8, 16, 16)


def network(**options: object) -> EgomotionNetwork:
    torch.manual_seed(0)
    return EgomotionNetwork(EgomotionConfig(encoder="lite", encoder_widths=WIDTHS, **options))  # type: ignore[arg-type]


def frames(count: int = 3, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = torch.rand(2, count, 3, size, size, generator=torch.Generator().manual_seed(1))
    return first, second


@pytest.mark.parametrize("encoder", ["resnet18", "lite"])
def test_shapes_and_start(encoder: str) -> None:
    ego = EgomotionNetwork(EgomotionConfig(encoder=encoder, focal=1.3, uncertainty=True))  # type: ignore[arg-type]
    result = ego(*frames())
    assert result.rotation.shape == result.translation.shape == (3, 3)
    assert result.rotation.abs().max() < 0.05
    assert result.translation.abs().max() < 0.05
    torch.testing.assert_close(result.focal, torch.full((3, 2), 1.3))
    torch.testing.assert_close(result.principal, torch.full((3, 2), 0.5))
    assert result.log_scale is not None
    assert result.log_scale.shape == (3, 1, 64, 64)
    assert (result.log_scale == 0).all()


def test_every_parameter_gets_a_gradient_and_the_camera_head_a_non_zero_one() -> None:
    ego = network(uncertainty=True)
    result = ego(*frames())
    assert result.log_scale is not None
    outputs = (result.rotation, result.translation, result.focal, result.principal, result.log_scale)
    torch.stack([x.square().sum() for x in outputs]).sum().backward()
    assert all(p.grad is not None for p in ego.parameters())
    assert ego.camera.weight.grad.abs().sum() > 0
    assert ego.motion.weight.grad.abs().sum() > 0


def test_order_of_the_frames_matters() -> None:
    ego = network().eval()
    first, second = frames()
    assert not torch.allclose(ego(first, second).rotation, ego(second, first).rotation)


def test_scales_multiply_the_numbers() -> None:
    small, large = (network(rotation_scale=r).eval()(*frames()) for r in (0.02, 0.1))
    torch.testing.assert_close(large.rotation, 5 * small.rotation)
    torch.testing.assert_close(large.translation, small.translation)


def test_principal_point_is_bounded_and_moves_both_ways() -> None:
    ego = network(principal_range=0.1)
    for sign in (-1.0, 1.0):
        torch.nn.init.constant_(ego.camera.bias, sign * 50)
        torch.testing.assert_close(ego(*frames()).principal, torch.full((3, 2), 0.5 + sign * 0.1))


def test_log_scale_is_bounded() -> None:
    ego = network(uncertainty=True)
    torch.nn.init.constant_(ego.uncertainty.out.bias, -100.0)
    log_scale = ego(*frames()).log_scale
    assert log_scale is not None
    assert log_scale.min() == -LOG_SCALE_BOUND


def test_fixed_camera_has_no_head() -> None:
    ego = network(learn_camera=False, focal=2.0)
    assert not any(name.startswith("camera") for name, _ in ego.named_parameters())
    torch.testing.assert_close(ego(*frames()).focal, torch.full((3, 2), 2.0))


def test_size_resizes_first() -> None:
    ego = network(size=64, uncertainty=True).eval()
    first, second = frames(size=128)
    small = [torch.nn.functional.avg_pool2d(x, 2) for x in (first, second)]
    result = ego(first, second)
    torch.testing.assert_close(result.rotation, ego(*small).rotation)
    assert result.log_scale is not None
    assert result.log_scale.shape[-1] == 128


def test_poses_are_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        result = network(uncertainty=True)(*frames())
    assert result.rotation.dtype == result.focal.dtype == torch.float32
    assert result.log_scale is not None
    assert result.log_scale.dtype == torch.float32


@pytest.mark.parametrize(
    ("option", "value"), [("size", 50), ("focal", 0.0), ("rotation_scale", -1.0), ("principal_range", 0.5), ("focal", math.nan)]
)
def test_bad_options_are_named(option: str, value: float) -> None:
    with pytest.raises(InputError, match=option):
        EgomotionConfig(**{option: value})  # type: ignore[arg-type]
