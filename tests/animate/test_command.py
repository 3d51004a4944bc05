"""`dagan animate` from end to end, with a tiny random model: times, sound, rotation, every option."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dagan.animate.animator import Animator
from dagan.animate.pipeline import AnimateOptions, animate
from dagan.engine.open import open_engine
from dagan.media.video import VideoWriter, open_video
from dagan.motion.file import read_motion, save_motion
from dagan.weights import read_model
from running_samples import FRAMES, TINY, decoded, frame_times, moving_pictures, save_tiny_model, sound_packets, write_clip


def results(files, driving, *, size=64, batch=4, source="portrait.png", reference=None, **options):
    """What the Python interface gives for the same input, written by the same writer."""
    animator = Animator(read_model(files / "model.safetensors"), batch_size=batch, **options)
    animator.set_source(np.asarray(Image.open(files / source)))
    if reference is not None:
        with open_video(driving) as reader:
            animator.set_reference(next(frame.image for frame in reader if frame.index == reference))
    return np.stack(list(animator.video(driving)))


def test_the_output_has_every_frame_and_the_sound(files, run, tmp_path):
    status, printed, complaints = run("--batch-size", "4", "--json", "report.json")
    assert (status, complaints) == (0, "")
    assert f"out.mp4: {FRAMES} frames, 0.44 s at 25 a second, with sound" in printed
    assert frame_times(tmp_path / "out.mp4") == frame_times(files / "clip.mp4") == [Fraction(i, 25) for i in range(FRAMES)]
    assert decoded(tmp_path / "out.mp4").shape == (FRAMES, 64, 64, 3)
    assert sound_packets(tmp_path / "out.mp4") == sound_packets(files / "clip.mp4") != []
    report = json.loads((tmp_path / "report.json").read_text())
    expected = {
        "frames": FRAMES, "frame_rate": "25", "seconds": 0.44, "model": "tiny-64", "device": "cpu", "precision": "float32", "sound": True,
        "truncated": False, "damaged_parts": 0, "pictures_searched": 0, "several_faces": False, "shots": 1,
        "frames_without_face": 0, "warnings": [],
        "device_memory_mb": None, "output": "out.mp4",
    }  # fmt: skip
    assert {key: report[key] for key in expected} == expected
    assert 0 <= report["reference_frame"] < FRAMES
    assert report["frames_per_second"] == pytest.approx(FRAMES / report["wall_seconds"], rel=0.01)
    assert 50 < report["peak_memory_mb"] < 5000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.mp4", "report.json"]


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--reference", "first"], {}),
        (["--reference", "first", "--no-adapt-scale"], {"adapt_scale": False}),
        (["--reference", "7"], {"reference": 7}),
        (["--absolute"], {"relative": False}),
    ],
)
def test_it_equals_the_python_interface(files, run, written, arguments, options):
    status, _, complaints = run(*arguments, "--batch-size", "4")
    assert (status, complaints) == (0, "")
    wanted = results(files, files / "clip.mp4", **options)
    # The last bits may differ: a reference in the middle is found in a batch there and alone here, and threads share sums as they are free.
    assert np.abs(np.stack(written).astype(int) - wanted).max() <= 1


def test_the_options_make_a_difference(files):
    clip = files / "clip.mp4"
    kinds = [{}, {"adapt_scale": False}, {"reference": 7}, {"relative": False}]
    frames = [results(files, clip, **options).astype(int) for options in kinds]
    for i, a in enumerate(frames):
        for b in frames[:i]:
            assert np.abs(a - b).max() > 3


def test_uneven_times_are_kept(files, run, tmp_path):
    times = [Fraction(t, 1000) for t in (0, 40, 80, 200, 210, 600, 1000)]
    clip = write_clip(tmp_path / "uneven.mp4", moving_pictures(7), times=times, sound=True)
    assert run(driving=clip)[0] == 0
    assert frame_times(tmp_path / "out.mp4") == frame_times(clip)
    assert sound_packets(tmp_path / "out.mp4") == sound_packets(clip) != []


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(30), Fraction(15)])
def test_frame_rates_are_exact(files, run, tmp_path, rate):
    with VideoWriter(tmp_path / "clip.mp4", 64, 64, rate=rate) as writer:
        for i, picture in enumerate(moving_pictures(6)):
            writer.write(picture, i / rate)
    assert run("--json", "r.json", driving=tmp_path / "clip.mp4")[0] == 0
    assert frame_times(tmp_path / "out.mp4") == frame_times(tmp_path / "clip.mp4")
    assert json.loads((tmp_path / "r.json").read_text())["frame_rate"] == str(rate)


def test_a_turned_video_is_read_upright(run, written, tmp_path):
    """A phone's portrait video is stored lying down: it must drive as the same pictures stored upright do."""
    pictures = moving_pictures(6)
    stored = [np.rot90(picture, -1).copy() for picture in pictures]
    lying = write_clip(tmp_path / "lying.mp4", stored, rotation=90)
    (tmp_path / "upright").mkdir()
    with open_video(write_clip(tmp_path / "without.mp4", stored)) as reader:
        for frame in reader:
            upright = np.rot90(frame.image, 1)
            assert np.abs(upright.astype(int) - pictures[frame.index]).mean() < 12
            Image.fromarray(upright).save(tmp_path / "upright" / f"{frame.index}.png")
    for driving, output in ((lying, "a.mp4"), (tmp_path / "upright", "b.mp4")):
        assert run("--reference", "first", driving=driving, output=output)[0] == 0
    assert (np.stack(written[:6]) == np.stack(written[6:])).all()


def test_a_folder_of_images_drives_at_its_own_rate(files, run, written, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    pictures = moving_pictures(5)
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{i + 8}.png")  # 8, 9, 10, ...: numbers, not text
    assert run("--frame-rate", "12.5", "--reference", "first", driving=folder)[0] == 0
    assert frame_times(tmp_path / "out.mp4") == [i * Fraction(2, 25) for i in range(5)]
    animator = Animator(read_model(files / "model.safetensors"))
    animator.set_source(np.asarray(Image.open(files / "portrait.png")))
    wanted = np.concatenate([animator.animate_batch(pictures[:4]), animator.animate_batch(pictures[4:])])
    # Rounding depends on how many threads share a layer: all of them here, one in the job.
    assert np.abs(np.stack(written).astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("suffix", [".mov", ".mkv", ".webm", ".gif"])
def test_other_formats(files, run, tmp_path, suffix):
    status, printed, complaints = run(output=f"out{suffix}")
    assert status == 0
    assert len(decoded(tmp_path / f"out{suffix}")) == FRAMES
    if suffix == ".gif":
        assert "sound" in complaints
        assert "with sound" not in printed
    else:
        assert complaints == ""
        assert sound_packets(tmp_path / f"out{suffix}")


def test_side_by_side(files, run, tmp_path):
    assert run("--side-by-side", "--reference", "first", "--batch-size", "4")[0] == 0
    got = decoded(tmp_path / "out.mp4").astype(int)
    assert got.shape == (FRAMES, 64, 4 * 64, 3)
    source = np.asarray(Image.open(files / "portrait.png"))[:, 5:75]
    shrunk = np.asarray(Image.fromarray(source).resize((64, 64), Image.Resampling.LANCZOS))
    assert np.abs(got[:, :, :64] - shrunk).mean() < 6
    driving = decoded(files / "clip.mp4")[:, :, 16:80]
    assert np.abs(got[:, :, 64:128] - driving).mean() < 6
    wanted = results(files, files / "clip.mp4")
    assert np.abs(got[:, :, 192:] - wanted).mean() < 6
    depth = got[:, :, 128:192]
    assert min(np.abs(depth - other).mean() for other in (shrunk, driving, wanted)) > 20


def test_side_by_side_without_depth_has_three_pictures(files, run, tmp_path):
    model = save_tiny_model(tmp_path / "rgb.safetensors", config=replace(TINY, name="tiny-rgb", use_depth=False))
    assert run("--side-by-side", model=model)[0] == 0
    assert decoded(tmp_path / "out.mp4").shape == (FRAMES, 64, 3 * 64, 3)


def test_paste_back_keeps_the_rest_of_the_photo(files, run, tmp_path):
    photo = np.full((100, 200, 3), (30, 90, 160), np.uint8)
    photo[:, 50:150] = np.asarray(Image.fromarray(moving_pictures(1, seed=5)[0]).resize((100, 100)))
    Image.fromarray(photo).save(tmp_path / "photo.png")
    assert run("--paste-back", source=tmp_path / "photo.png")[0] == 0
    got = decoded(tmp_path / "out.mp4").astype(int)
    assert got.shape == (FRAMES, 100, 200, 3)
    assert np.abs(got[:, :, :44] - photo[:, :44]).max() < 8
    assert np.abs(got[:, :, 156:] - photo[:, 156:]).max() < 8
    assert np.abs(got[:, 10:90, 60:140] - photo[10:90, 60:140]).mean() > 5  # the middle is the model's


def test_a_motion_file_gives_the_frames_of_its_video(files, run, written, tmp_path):
    assert run("--save-motion", "a.motion", "--batch-size", "4", "--json", "a.json")[0] == 0
    assert run("--batch-size", "4", "--json", "b.json", driving="a.motion", output="again.mp4")[0] == 0
    assert len(written) == 2 * FRAMES
    assert (np.stack(written[:FRAMES]) == np.stack(written[FRAMES:])).all()
    assert frame_times(tmp_path / "again.mp4") == frame_times(tmp_path / "out.mp4")
    assert sound_packets(tmp_path / "again.mp4") == []
    a, b = (json.loads((tmp_path / f"{name}.json").read_text()) for name in "ab")
    assert a["reference_frame"] == b["reference_frame"]
    assert b["sound"] is False
    motion = read_motion(tmp_path / "a.motion")
    assert (len(motion), motion.model, motion.image_size, motion.rate) == (FRAMES, "tiny-64", 64, 25)
    assert motion.times == tuple(Fraction(i, 25) for i in range(FRAMES + 1))


def test_a_motion_file_may_get_another_reference(files, run, written, tmp_path):
    assert run("--save-motion", "a.motion", "--reference", "3")[0] == 0
    assert read_motion(tmp_path / "a.motion").reference == 3
    assert run("--reference", "5", driving="a.motion", output="five.mp4")[0] == 0
    assert run("--reference", "5", output="wanted.mp4")[0] == 0
    three, five, wanted = (np.stack(written[i * FRAMES : (i + 1) * FRAMES]).astype(int) for i in range(3))
    assert (five == wanted).all()
    assert np.abs(three - wanted).max() > 3


def test_the_reference_most_like_the_source_is_found(files, run, tmp_path):
    """The source is one of the driving frames: auto must find it."""
    for index in (2, 8):
        Image.fromarray(decoded(files / "clip.mp4")[index]).save(tmp_path / "frame.png")
        assert run("--json", f"{index}.json", "--overwrite", source=tmp_path / "frame.png")[0] == 0
        assert json.loads((tmp_path / f"{index}.json").read_text())["reference_frame"] == index


def test_a_motion_of_another_model_is_refused_and_of_another_training_warned_of(files, run, tmp_path):
    assert run("--save-motion", "a.motion")[0] == 0
    other = save_tiny_model(tmp_path / "other.safetensors", seed=1)
    status, _, complaints = run(driving="a.motion", output="b.mp4", model=other)
    assert status == 0
    assert "another training of 'tiny-64'" in complaints
    renamed = save_tiny_model(tmp_path / "renamed.safetensors", seed=1, config=replace(TINY, name="renamed"))
    status, _, complaints = run(driving="a.motion", output="c.mp4", model=renamed)
    assert (status, "made with model 'tiny-64'" in complaints) == (2, True)
    fewer = save_tiny_model(tmp_path / "fewer.safetensors", config=replace(TINY, keypoints=replace(TINY.keypoints, count=5)))
    status, _, complaints = run(driving="a.motion", output="c.mp4", model=fewer)
    assert (status, "6 keypoints a frame" in complaints) == (2, True)
    assert not (tmp_path / "c.mp4").exists()


def test_a_cut_off_video_is_animated_as_far_as_it_goes_and_said_so(files, run, tmp_path):
    clip = write_clip(tmp_path / "whole.mkv", moving_pictures(60))
    content = clip.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) * 2 // 3])
    status, _, complaints = run("--json", "r.json", driving=tmp_path / "cut.mkv")
    report = json.loads((tmp_path / "r.json").read_text())
    assert status == 0
    assert "cut off" in complaints
    assert report["truncated"] is True
    assert [warning for warning in report["warnings"] if "cut off" in warning]
    assert 10 < report["frames"] < 60
    assert len(decoded(tmp_path / "out.mp4")) == report["frames"]


def test_progress_names_its_stages_in_order(files, tmp_path):
    told = []
    engine = open_engine(files / "model.safetensors", device="cpu")
    options = AnimateOptions(crop=False)
    animate(engine, files / "portrait.png", files / "clip.mp4", tmp_path / "out.mp4", options, lambda *step: told.append(step))
    assert list(dict.fromkeys(stage for stage, _, _ in told)) == ["reading the motion", "drawing"]
    assert told[-1] == ("drawing", FRAMES, FRAMES)
    assert [done for stage, done, _ in told if stage == "drawing"] == list(range(FRAMES + 1))


def test_saving_an_edited_motion(files, run, tmp_path):
    """Motion is plain data: half the speed, the same frames."""
    assert run("--save-motion", "a.motion")[0] == 0
    motion = read_motion(tmp_path / "a.motion")
    slow = replace(motion, times=tuple(2 * t for t in motion.times), rate=motion.rate / 2)
    save_motion(tmp_path / "slow.motion", slow)
    assert run(driving="slow.motion", output="slow.mp4")[0] == 0
    assert frame_times(tmp_path / "slow.mp4") == [2 * t for t in frame_times(tmp_path / "out.mp4")]
    assert Path("slow.mp4").exists()
