"""`dagan pose`, `Animator.pose` and `--move`: a head turns as far as it is told, strips and videos are written, and nonsense is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dagan.animate.animator import Animator
from dagan.animate.pose import read_poses
from dagan.animate.posing import Response
from dagan.cli.animate import PORTRAIT
from dagan.engine.open import open_engine
from dagan.errors import InputError
from dagan.media.images import read_image
from dagan.media.landmarks import RIGID, FaceLandmarker, rotation_between
from dagan.motion.head import angles_of
from dagan.motion.pose import Pose
from running_samples import TINY, decoded, save_tiny_model


@pytest.fixture(scope="module")
def portrait():
    """The bundled portrait's animator; tests do not change it."""
    animator = Animator(open_engine("lite-256", device="cpu", precision="float32"))
    animator.set_source(read_image(PORTRAIT), crop=True)
    return animator


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model, whose keypoints stand on the lips, and a photo."""
    folder = tmp_path_factory.mktemp("pose")
    save_tiny_model(folder / "tiny.safetensors", config=replace(TINY, keypoints=replace(TINY.keypoints, landmarks=(13, 14))))
    Image.open(PORTRAIT).convert("RGB").resize((160, 160)).save(folder / "me.png")
    return folder


@pytest.fixture
def run(folder, command, tmp_path, monkeypatch):
    """run(*arguments, output=): status, what was printed and what was complained of by `dagan pose` with the tiny model."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, output="out.png"):
        line = ["pose", folder / "me.png", "-o", output, "--model", folder / "tiny.safetensors", "--device", "cpu"]
        return command(*line, *arguments)

    return call


def found(picture):
    return FaceLandmarker().detect(picture)[0].landmarks.astype(np.float64)


def gap(face, a, b):
    return np.linalg.norm(face[a] - face[b]) / np.linalg.norm(face[10] - face[152])


def test_the_drawn_head_turns_as_far_as_it_is_told(portrait):
    still = found(portrait.pose())
    for pose, axis in (({"yaw": 20}, 0), ({"yaw": -20}, 0), ({"pitch": 12}, 1), ({"roll": 20}, 2)):
        turned = found(portrait.pose(**pose))
        angles = angles_of(rotation_between(still[list(RIGID)], turned[list(RIGID)]).T)
        assert angles[axis] == pytest.approx(next(iter(pose.values())), abs=5)
        assert np.abs(np.delete(angles, axis)).max() < 6


def test_mouth_lids_and_smile_are_drawn(portrait):
    still, open_mouth = found(portrait.pose()), found(portrait.pose(mouth=0.8))
    assert gap(open_mouth, 13, 14) > gap(still, 13, 14) + 0.04
    # The landmarker sees closed lids half open.
    assert gap(found(portrait.pose(lids=-1)), 159, 145) < 0.85 * gap(still, 159, 145)
    assert gap(found(portrait.pose(smile=-1)), 61, 291) < gap(still, 61, 291) - 0.02


def test_no_pose_is_the_photo_at_rest(portrait):
    rest = portrait.engine.render(portrait._encoded(), portrait._encoded().keypoints)[0]
    assert np.abs(portrait.pose().astype(int) - rest).max() <= 1


def test_a_turn_too_far_is_held_and_said(portrait, capsys):
    far = found(portrait.pose(yaw=60))
    assert "yaw 60 goes beyond what the model can draw of this face: it is held at about" in capsys.readouterr().err
    angles = angles_of(rotation_between(found(portrait.pose())[list(RIGID)], far[list(RIGID)]).T)
    assert 25 < angles[0] < 55


def test_turns_pass_unchanged_up_to_what_can_be_drawn():
    asked = Response(right=1.2, left=0.9).asked(Pose(yaw=20, pitch=-10))
    assert (asked.yaw, asked.pitch) == (pytest.approx(24), pytest.approx(-10))
    assert Response(left=0.9).asked(Pose(yaw=-20)).yaw == pytest.approx(-18)
    assert Response().asked(Pose(yaw=60)).yaw < 42


def test_a_picture_a_strip_and_a_video(run, tmp_path):
    status, printed, complaints = run("--yaw", "15", "--mouth", "0.5")
    assert (status, complaints) == (0, "")
    assert "1 picture, yaw 15, mouth 0.5" in printed
    assert np.asarray(Image.open(tmp_path / "out.png")).shape == (64, 64, 3)
    assert run("--yaw", "-20,0,20", "--shift", "0.1", "0", output="strip.png")[0] == 0
    strip = np.asarray(Image.open(tmp_path / "strip.png")).astype(int)
    assert strip.shape == (64, 192, 3)
    assert np.abs(strip[:, :64] - strip[:, 128:]).max() > 5
    assert run("--yaw", "-20:20:-20", "--seconds", "0.2", output="sweep.mp4")[0] == 0
    assert len(decoded(tmp_path / "sweep.mp4")) == 11


def test_without_a_face_turns_are_taken_as_they_are(folder, command, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 80, 3), dtype=np.uint8)).save(tmp_path / "noise.png")
    line = ["pose", tmp_path / "noise.png", "-o", tmp_path / "out.png", "--model", folder / "tiny.safetensors", "--device", "cpu"]
    assert command(*line, "--yaw", "10", "--no-crop")[0] == 0
    status, _, complaints = command(*line, "--yaw", "10", "--overwrite")
    assert status == 2
    assert "no face found in the source picture" in complaints


@pytest.mark.parametrize(
    ("arguments", "output", "words"),
    [
        (["--yaw", "far"], "out.png", "yaw is 'far': must be a number"),
        (["--yaw", "99"], "out.png", "yaw is 99: must be from -60 to 60"),
        (["--yaw", "0,10", "--pitch", "0:5"], "out.png", "some values have commas"),
        (["--yaw", "0,10", "--pitch", "0,5,9"], "out.png", "there are 2 of yaw, 3 of pitch: give as many values of each"),
        (["--yaw", "0:10"], "out.jpg", "a video is written to"),
        (["--yaw", "10"], "out.mp4", "the pose is one that stands still: name an image file such as out.png"),
        (["--smile", "1"], "out.png", "smile: the keypoints of model 'tiny-64' do not stand on what this moves"),
        (["--yaw", "0:10", "--seconds", "0"], "out.mp4", "--seconds is 0: must be above 0"),
    ],
)
def test_what_cannot_be_posed_is_refused(run, tmp_path, arguments, output, words):
    status, _, complaints = run(*arguments, output=output)
    assert status == 2
    assert words in complaints
    assert not list(Path(tmp_path).iterdir())


def test_a_number_on_its_own_serves_all():
    poses, sweep = read_poses({"yaw": "-20, 0, 20", "smile": "0.5"})
    assert poses == [Pose(yaw=yaw, smile=0.5) for yaw in (-20, 0, 20)]
    assert not sweep
    assert read_poses({"zoom": "1:1.5"}) == ([Pose(zoom=1), Pose(zoom=1.5)], True)
    assert read_poses({}) == ([Pose()], False)
    with pytest.raises(InputError, match="at most 64"):
        read_poses({"yaw": ",".join("0" * 65)})


@pytest.mark.slow
def test_expression_alone_keeps_the_bundled_head_still(command, tmp_path, monkeypatch):
    """The bundled motion turns the head; with --move expression only the face moves."""
    from dagan.cli.animate import MOTION
    from dagan.motion.file import read_motion

    motion = read_motion(MOTION)
    engine = open_engine("lite-256", device="cpu", precision="float32")
    every = motion.keypoints(slice(0, len(motion), 12))
    turns, mouths = {}, {}
    for move in ("all", "expression", "pose"):
        animator = Animator(engine, keypoints="landmarks", move=move)
        animator.set_source(read_image(PORTRAIT), crop=True)
        animator.set_reference(motion.keypoints(slice(motion.reference, motion.reference + 1)))
        faces = [found(picture) for picture in animator.drive(every)]
        angles = np.array([angles_of(rotation_between(faces[0][list(RIGID)], face[list(RIGID)]).T) for face in faces])
        turns[move] = np.sqrt(np.square(angles).mean())
        mouths[move] = np.std([gap(face, 13, 14) for face in faces])
    assert turns["expression"] < 1 < turns["all"]
    assert turns["pose"] > 0.8 * turns["all"]
    assert mouths["expression"] > 0.85 * mouths["all"]
    assert mouths["pose"] < 0.35 * mouths["all"]


def test_parts_are_refused_before_anything_is_read(command, folder, tmp_path):
    line = ["animate", folder / "me.png", "none.mp4", "-o", tmp_path / "out.mp4"]
    for arguments, words in ((("--move", "nose"), "--move is 'nose'"), (("--strength", "9"), "--strength is 9: must be from 0")):
        status, _, complaints = command(*line, *arguments)
        assert status == 2
        assert words in complaints


def test_the_command_scales_motion(command, folder, write_clip, tmp_path):
    photo = np.asarray(Image.open(folder / "me.png"))
    write_clip(tmp_path / "clip.mp4", [np.roll(photo, shift, 1) for shift in (0, 4, 8)])
    line = ["animate", folder / "me.png", tmp_path / "clip.mp4", "--model", folder / "tiny.safetensors", "--device", "cpu", "--no-crop"]
    ways = []
    for strength in ("1", "0.2", "0"):
        assert command(*line, "-o", tmp_path / f"{strength}.mp4", "--strength", strength)[0] == 0
        pictures = decoded(tmp_path / f"{strength}.mp4").astype(int)
        ways.append(np.abs(pictures[2] - pictures[0]).mean())
    assert ways[0] > ways[1] > 2
    assert ways[2] < 2
    status, _, complaints = command(*line, "-o", tmp_path / "eyes.mp4", "--move", "eyes")
    assert status == 2
    assert "--move eyes: no keypoints of model 'tiny-64' stand on landmarks there" in complaints
