"""The Python interface: one source, frames in, frames out."""

import gc
import tracemalloc
from inspect import signature

import numpy as np
import pytest
import torch

import dagan
from dagan.animate.animator import Animator
from dagan.animate.pipeline import AnimateOptions
from dagan.cli.animate import animate
from dagan.cli.evaluate import cross_identity
from dagan.engine.torch import TorchEngine
from dagan.errors import InputError
from dagan.media.video import open_video
from dagan.motion.transfer import transfer
from running_samples import moving_pictures, tiny_model, write_clip

PICTURES = moving_pictures(7)
SOURCE = moving_pictures(1, seed=5)[0]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def as_tensor(picture):
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255


def expected(model, source, driving, reference, relative, adapt_scale):
    """The same through the model alone."""
    encoded = model.encode_source(as_tensor(source))
    initial = model.keypoints(as_tensor(reference))
    out = []
    for picture in driving:
        moved = transfer(encoded.keypoints, model.keypoints(as_tensor(picture)), initial, relative, adapt_scale)
        out.append((model.drive(encoded, moved).image[0].permute(1, 2, 0) * 255).round().clamp(0, 255).byte().numpy())
    return np.stack(out)


@pytest.mark.parametrize(("relative", "adapt_scale"), [(True, True), (True, False), (False, False)])
def test_frames_are_what_the_model_gives(model, relative, adapt_scale):
    animator = Animator(model, relative, adapt_scale)
    animator.set_source(SOURCE)
    got = np.stack([animator.animate(picture) for picture in PICTURES])
    wanted = expected(model, SOURCE, PICTURES, PICTURES[0], relative, adapt_scale)
    assert got.dtype == np.uint8
    assert np.abs(got.astype(int) - wanted).max() <= 1
    assert np.ptp(got, axis=0).max() > 5  # the picture does move


def test_batches_give_the_frames_that_single_steps_give(model):
    one, many = Animator(model), Animator(model)
    for animator in (one, many):
        animator.set_source(SOURCE)
    singles = np.stack([one.animate(picture) for picture in PICTURES])
    batches = np.concatenate([many.animate_batch(PICTURES[:3]), many.animate_batch(PICTURES[3:])])
    assert np.abs(singles.astype(int) - batches).max() <= 1


def test_the_reference_is_the_first_frame_until_set_or_reset(model):
    animator = Animator(model)
    animator.set_source(SOURCE)
    animator.set_reference(PICTURES[4])
    wanted = expected(model, SOURCE, PICTURES[:2], PICTURES[4], True, True)
    assert np.abs(animator.animate_batch(PICTURES[:2]).astype(int) - wanted).max() <= 1
    animator.reset()
    wanted = expected(model, SOURCE, PICTURES[2:4], PICTURES[2], True, True)
    assert np.abs(animator.animate_batch(PICTURES[2:4]).astype(int) - wanted).max() <= 1
    animator.set_source(PICTURES[6])  # forgets the reference too
    wanted = expected(model, PICTURES[6], PICTURES[3:5], PICTURES[3], True, True)
    assert np.abs(animator.animate_batch(PICTURES[3:5]).astype(int) - wanted).max() <= 1


def test_the_source_is_encoded_once(model, monkeypatch):
    calls = []
    encode = type(model).encode_source
    monkeypatch.setattr(type(model), "encode_source", lambda self, image: calls.append(1) or encode(self, image))
    animator = Animator(model)
    animator.set_source(SOURCE)
    for picture in PICTURES:
        animator.animate(picture)
    assert len(calls) == 1


def test_two_animators_share_one_engine_without_mixing_sources(model):
    engine = TorchEngine(model)
    first, second = Animator(engine), Animator(engine)
    first.set_source(SOURCE)
    alone = first.animate_batch(PICTURES[:2])
    second.set_source(PICTURES[5])
    first.reset()
    assert (first.animate_batch(PICTURES[:2]) == alone).all()


def test_a_video_streams_and_equals_its_batches(model, tmp_path):
    clip = write_clip(tmp_path / "a.mp4", PICTURES)
    animator = Animator(model, batch_size=3)
    animator.set_source(SOURCE)
    frames = list(animator.video(clip))
    assert len(frames) == len(PICTURES)
    animator.reset()
    with open_video(clip) as reader:
        pictures = [frame.image for frame in reader]
    again = np.concatenate([animator.animate_batch(pictures[i : i + 3]) for i in (0, 3, 6)])
    assert (np.stack(frames) == again).all()


@pytest.mark.slow
def test_memory_of_a_video_does_not_grow_with_length(model, tmp_path):
    """Python's own allocations (pictures are among them) stay below a few batches, whatever the length."""
    peaks = []
    for count in (64, 320):  # many batches both, so that whatever is read ahead is full
        clip = write_clip(tmp_path / f"{count}.mp4", moving_pictures(8) * (count // 8))
        animator = Animator(model, batch_size=4)
        animator.set_source(SOURCE)
        animator.animate(SOURCE)  # opens the face finder, whose file is larger than all pictures
        gc.collect()
        tracemalloc.start()
        assert sum(1 for _ in animator.video(clip)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    picture = SOURCE.nbytes
    assert peaks[1] < peaks[0] + 40 * picture
    assert peaks[1] < 100 * picture


def test_pictures_of_any_size_are_cut_to_their_middle_and_resized(model):
    animator = Animator(model)
    wide = np.zeros((64, 200, 3), np.uint8)
    wide[:, 68:132] = SOURCE
    animator.set_source(wide)
    from_wide = animator.animate_batch(PICTURES[:2])
    animator.set_source(SOURCE)
    assert (from_wide == animator.animate_batch(PICTURES[:2])).all()
    doubled = SOURCE.repeat(2, 0).repeat(2, 1)
    animator.set_source(doubled)
    assert animator.animate(doubled).shape == (64, 64, 3)


def test_what_cannot_work_is_said(model):
    animator = Animator(model)
    with pytest.raises(InputError, match="call set_source first"):
        animator.animate(SOURCE)
    with pytest.raises(InputError, match="must be uint8 H x W x 3"):
        animator.set_source(SOURCE.astype(np.float32))
    with pytest.raises(InputError, match="must be uint8 H x W x 3"):
        animator.set_source(SOURCE[..., 0])
    animator.set_source(SOURCE)
    with pytest.raises(InputError, match="no driving frames"):
        animator.animate_batch([])
    with pytest.raises(InputError, match="batch size is 0"):
        Animator(model, batch_size=0)
    with pytest.raises(InputError, match="does not exist"):
        next(animator.video("nowhere.mp4"))


def test_the_package_offers_it():
    assert dagan.Animator is Animator


def test_scale_is_adapted_wherever_nothing_else_is_said():
    defaults = {
        "transfer": signature(dagan.transfer).parameters["adapt_scale"].default,
        "Animator": signature(Animator).parameters["adapt_scale"].default,
        "AnimateOptions": AnimateOptions.adapt_scale,
        "dagan animate": signature(animate).parameters["adapt_scale"].default,
        "dagan evaluate cross-identity": signature(cross_identity).parameters["adapt_scale"].default,
    }
    assert defaults == dict.fromkeys(defaults, True)
