"""Colours and framing change alike in all frames of a sample."""

from __future__ import annotations

import pytest
import torch

from dagan.data.batches import jitter_colours, reframe
from dagan.data.config import AugmentConfig, PairConfig
from dagan.errors import InputError


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _smooth(count: int, k: int, size: int = 32) -> torch.Tensor:
    small = torch.rand(count, 3, 5, 5, generator=_generator(9))
    frame = torch.nn.functional.interpolate(small, size=(size, size), mode="bicubic").clamp(0.05, 0.95)
    return frame[:, None].expand(-1, k, -1, -1, -1).contiguous()


def test_jitter_is_one_draw_per_sample() -> None:
    frames = _smooth(4, 3)
    config = AugmentConfig(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1)
    out = jitter_colours(frames, config, _generator())
    assert out.shape == frames.shape
    assert torch.equal(out[:, 0], out[:, 1])
    assert torch.equal(out[:, 0], out[:, 2])
    change = (out - frames).mean((1, 3, 4))
    assert all((change[i] - change[j]).abs().max() > 1e-3 for i in range(4) for j in range(i))
    assert out.min() >= 0
    assert out.max() <= 1
    assert torch.equal(out, jitter_colours(frames, config, _generator()))


def test_jitter_treats_frames_of_a_sample_as_one_picture() -> None:
    # Contrast turns about one mean for all frames: a pixel that does not change between frames does not flicker.
    frames = torch.full((1, 2, 3, 8, 8), 0.5)
    frames[:, 1, :, :, 4:] = 0.9
    out = jitter_colours(frames, AugmentConfig(contrast=0.5), _generator())
    assert torch.equal(out[:, 0, :, :, :4], out[:, 1, :, :, :4])
    assert not torch.allclose(out[:, 1], frames[:, 1])


def test_brightness_scales() -> None:
    frames = _smooth(8, 2) * 0.5
    ratio = (jitter_colours(frames, AugmentConfig(brightness=0.2), _generator()) / frames).flatten(1)
    assert (ratio.amax(1) - ratio.amin(1)).max() < 1e-5
    assert ratio.min() >= 0.8
    assert ratio.max() <= 1.2
    assert ratio[:, 0].std() > 0.03


def test_hue_is_measured_in_turns() -> None:
    red = torch.tensor([0.8, 0.2, 0.2])[:, None, None].expand(1, 1, 3, 4, 4)
    shifted = [jitter_colours(red, AugmentConfig(hue=0.1), _generator(s))[0, 0, :, 0, 0] for s in range(40)]
    # A tenth of a turn from red reaches orange (green 0.56) or pink (blue 0.56), never further.
    green, blue = max(float(c[1]) for c in shifted), max(float(c[2]) for c in shifted)
    assert 0.45 < green < 0.57
    assert 0.45 < blue < 0.57


def test_nothing_to_change_returns_the_frames() -> None:
    frames = _smooth(2, 2)
    assert jitter_colours(frames, AugmentConfig(), _generator()) is frames
    assert torch.equal(reframe(frames, AugmentConfig(flip=0), _generator())[0], frames)


def test_mirroring_alone_is_exact_and_per_sample() -> None:
    frames = torch.rand(64, 2, 3, 8, 8)
    out = reframe(frames, AugmentConfig(flip=0.5), _generator())[0]
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(out, frames, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(out, frames, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 16 < sum(mirrored) < 48


def test_zoom_enlarges_the_middle_and_mirrors_with_it() -> None:
    frames = _smooth(3, 2, 33)
    out = reframe(frames, AugmentConfig(flip=0, zoom=(2.0, 2.0)), _generator())[0]
    # Twice as large: every second pixel is one of the middle half.
    assert torch.allclose(out[..., ::2, ::2], frames[..., 8:25, 8:25], atol=1e-5)
    flipped = reframe(frames, AugmentConfig(flip=1, zoom=(2.0, 2.0)), _generator())[0]
    assert torch.allclose(flipped, out.flip(-1), atol=1e-5)


def test_shift_and_rotation_are_bounded_and_shared_by_all_frames() -> None:
    frames = _smooth(6, 3)
    out = reframe(frames, AugmentConfig(flip=0, zoom=(0.85, 1.15), shift=0.05, rotate=10), _generator())[0]
    assert torch.equal(out[:, 0], out[:, 2])
    change = (out - frames).abs().mean((1, 2, 3, 4))
    assert change.min() > 1e-3
    half_turn = reframe(frames, AugmentConfig(flip=0, rotate=180), _generator(1))[0]
    assert (half_turn - frames).abs().mean() > 0.02


def test_still_samples_move_and_the_others_do_not() -> None:
    frames = _smooth(4, 2)
    still = torch.tensor([True, False, True, False])
    out = reframe(frames, AugmentConfig(flip=0), _generator(), still, PairConfig(still=0.5, affine_sigma=0.06, tps_sigma=0.008))[0]
    assert torch.allclose(out[~still], frames[~still], atol=1e-5)
    moved = out[still]
    # Source and driving of a still pair are moved independently.
    assert (moved[:, 0] - moved[:, 1]).abs().mean((1, 2, 3)).min() > 5e-3
    assert (moved[:, 0] - frames[still][:, 0]).abs().mean((1, 2, 3)).min() > 5e-3
    assert (moved - frames[still]).abs().mean() < 0.2, "still recognisable"


@pytest.mark.parametrize(
    ("field", "value"), [("flip", 2), ("hue", 0.6), ("zoom", (1.2, 0.8)), ("zoom", (0, 1)), ("rotate", 200), ("brightness", -1)]
)
def test_bad_settings_are_named(field: str, value: object) -> None:
    with pytest.raises(InputError, match=f"augment {field}"):
        AugmentConfig(**{field: value})  # type: ignore[arg-type]
