import torch
from torch import Tensor

from dagan.train.alignment import align, head_level
from relief_scene import DISTANCE, Scene, render

CAMERA = (torch.full((8, 2), 1.5), torch.full((8, 2), 0.5))


def scene(degrees: float = 6.0, seed: int = 4) -> Scene:
    return render(8, 96, torch.Generator().manual_seed(seed), degrees=degrees, shift=0.02)


def head_disparity(scene: Scene) -> Tensor:
    """True on the head; the wall, which does not move with it, is put at the head's far end."""
    return 1 / torch.where(scene.head, scene.depth, scene.depth[scene.head].max())


def aligned(scene: Scene, disparity: Tensor) -> tuple[Tensor, Tensor]:
    """Motion from the middle frame to the next."""
    return align(scene.frames[1], scene.frames[2], disparity, *CAMERA)


def agreement(found: Tensor, truth: Tensor) -> Tensor:
    """Correlation of the three components over the samples."""
    return torch.stack([torch.corrcoef(torch.stack([a, b]))[0, 1] for a, b in zip(found.T, truth.T, strict=True)])


def test_true_depth_gives_the_true_turn() -> None:
    made = scene()
    rotation, _ = aligned(made, head_disparity(made))
    truth = made.motion.rotation[8:]
    assert agreement(rotation, truth).min() > 0.8
    assert (rotation - truth).norm(dim=1).mean() < 0.5 * truth.norm(dim=1).mean()


def test_a_wall_behind_the_head_does_not_disturb_the_turn() -> None:
    made = scene()
    rotation, _ = aligned(made, 1 / torch.where(made.head, made.depth, 3 * made.depth[made.head].max()))
    truth = made.motion.rotation[8:]
    assert agreement(rotation, truth).min() > 0.8
    assert (rotation - truth).norm(dim=1).mean() < 0.5 * truth.norm(dim=1).mean()


def test_distance_is_the_heads_whatever_stands_behind() -> None:
    made = scene()
    walls = [1 / torch.where(made.head, made.depth, far * made.depth[made.head].max()) for far in (1.5, 6)]
    near, far = (head_level(wall).flatten() for wall in walls)
    torch.testing.assert_close(near, far, rtol=0.02, atol=0)


def test_shift_is_found_in_units_of_the_distance() -> None:
    made = scene(degrees=0.0)
    # The distance is the head's own, nearer than the scene's unit.
    distance = 1 / head_level(head_disparity(made))[:, 0, 0, 0]
    rotation, translation = aligned(made, head_disparity(made))
    truth = made.motion.translation[8:] * DISTANCE / distance[:, None]
    assert (translation - truth)[:, :2].abs().max() < 0.004
    assert rotation.norm(dim=1).mean() < 0.04


def test_scale_of_the_disparity_does_not_matter() -> None:
    made = scene()
    for small, large in zip(aligned(made, 1 / made.depth), aligned(made, 7 / made.depth), strict=True):
        torch.testing.assert_close(small, large, atol=1e-3, rtol=0)


def test_hollow_head_turns_the_other_way() -> None:
    # The reason why training starts from a bulge: in small turns the relief's sign is the turn's sign.
    made = scene()
    disparity = head_disparity(made)
    rotation, _ = aligned(made, 2 * disparity[made.head].mean() - disparity)
    assert agreement(rotation[:, :2], made.motion.rotation[8:, :2]).max() < -0.5


def test_equal_frames_give_no_motion_and_no_gradient() -> None:
    frame = scene().frames[1].requires_grad_()
    rotation, translation = align(frame, frame, torch.ones(1, 1, 96, 96), *CAMERA)
    assert rotation.abs().max() < 1e-5
    assert translation.abs().max() < 1e-5
    assert not rotation.requires_grad


def test_blank_frames_are_finite() -> None:
    first, second = torch.zeros(8, 3, 64, 64), torch.ones(8, 3, 64, 64)
    for number in align(first, second, torch.ones(1, 1, 64, 64), *CAMERA):
        assert torch.isfinite(number).all()
        assert number.abs().max() < 0.5
