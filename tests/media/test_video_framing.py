"""One framing for a video: fixed where it can be, calm where it must move."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from dagan.errors import InputError
from dagan.media.framing import Framing, Turn, crop
from dagan.media.shots import FramingReport, follow
from dagan.media.video import VideoWriter, open_video
from dagan.media.view import frame_video, settle, smooth
from faces_seen import seen


def boxes_at(centres, tall=100.0):
    centres = np.asarray(centres, float)
    half = np.array([0.4 * tall, 0.5 * tall])
    return np.concatenate([centres - half, centres + half], axis=1)


class White:
    """Finds white squares, largest first; notes how it was asked."""

    def __init__(self):
        self.shapes, self.thorough = [], []

    def follow_face(self, image, previous):
        return None

    def find_faces(self, image, *, thorough=True):
        from scipy import ndimage

        self.shapes.append(image.shape)
        self.thorough.append(thorough)
        labels, _ = ndimage.label(image[..., 0] > 128)
        spans = [(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(labels)]
        return sorted((seen(tuple(map(float, s))) for s in spans), key=lambda f: -f.area)


def film(path, pictures, size=(240, 320), rate=25):
    """A video with white squares (x, y, side) on black; each picture is a list of them."""
    with VideoWriter(path, size[1], size[0], rate=rate, crf=5) as writer:
        for index, squares in enumerate(pictures):
            image = np.zeros((*size, 3), np.uint8)
            for x, y, side in squares:
                image[y : y + side, x : x + side] = 255
            writer.write(image, Fraction(index, rate))
    return open_video(path)


def test_still_head_gets_a_fixed_square():
    rng = np.random.default_rng(0)
    times = np.arange(50) / 6
    framing = settle(times, boxes_at(rng.normal((600, 400), 4, (50, 2))), Turn(0, 1280, 720))
    assert not framing.moving
    assert framing.at(0) == framing.at(3.3) == framing.at(1000)
    assert framing.side == pytest.approx(100 / 0.52, rel=0.02)
    assert framing.at(0).center_x == pytest.approx(600, abs=3)
    assert framing.face_height == pytest.approx(100)


def test_moderate_movement_widens_the_fixed_square():
    times = np.arange(60) / 6
    path = np.stack([600 + 70 * np.sin(times), np.full(60, 400)], axis=1)
    framing = settle(times, boxes_at(path), Turn(0, 1280, 720))
    assert not framing.moving
    assert framing.side == pytest.approx((140 + 80) / 0.75, rel=0.03)
    assert 100 / framing.side >= 0.3
    left, _, right, _ = framing.at(0).bounds
    assert left < 490
    assert right > 710


def test_large_movement_is_followed_calmly():
    """A head that walks through the picture, with jittering boxes: constant side, smooth path, face always well inside."""
    rng = np.random.default_rng(0)
    times = np.arange(90) / 6
    path = np.stack([200 + 60 * times, np.full(90, 360)], axis=1)
    framing = settle(times, boxes_at(path + rng.normal(0, 4, path.shape)), Turn(0, 1280, 720))
    assert framing.moving
    assert framing.side == pytest.approx(100 / 0.52, rel=0.02)
    dense = np.linspace(0, times[-1], 400)
    centres = np.array([[framing.at(t).center_x, framing.at(t).center_y] for t in dense])
    expected = 200 + 60 * dense
    assert np.abs(centres[20:-20, 0] - expected[20:-20]).max() < 8
    assert np.abs(centres[:, 0] - expected).max() < 30
    assert np.diff(centres[:, 0]).min() > -0.5
    assert centres[:, 1].std() < 3


def test_square_beyond_the_picture_gives_way_to_a_moving_one():
    """Side to side in a wide picture: one square for all of it would need 30 % of made-up border."""
    times = np.arange(60) / 6
    path = np.stack([960 + 300 * np.sin(times), np.full(60, 540)], axis=1)
    framing = settle(times, boxes_at(path, tall=450), Turn(0, 1920, 1080))
    assert framing.moving
    assert framing.side <= 1080
    for time in times:
        left, top, right, bottom = framing.at(time).bounds
        assert min(left, top, 1920 - right, 1080 - bottom) > -1e-6


def test_single_wrong_boxes_do_not_count():
    boxes = boxes_at(np.full((100, 2), (600.0, 400.0)))
    boxes[40] = (20, 20, 60, 70)
    assert settle(np.arange(100) / 6, boxes, Turn(0, 1280, 720)).side == pytest.approx(100 / 0.52)


def test_framed_clip_stays_whole():
    rng = np.random.default_rng(0)
    framing = settle(np.arange(30) / 6, boxes_at(rng.normal((128, 126), 5, (30, 2)), tall=132), Turn(0, 256, 256))
    assert framing.at(1.0).bounds == (0, 0, 256, 256)


def test_smoothing():
    times = np.sort(np.random.default_rng(0).uniform(0, 20, 300))
    straight = np.stack([3 * times, 100 - times], axis=1)
    assert np.abs(smooth(times, straight) - straight)[40:-40].max() < 0.8  # uneven samples weigh unevenly
    noise = np.random.default_rng(1).normal(0, 1, (300, 2))
    assert smooth(times, noise)[40:-40].std() < 0.4
    assert np.array_equal(smooth(times[:1], straight[:1]), straight[:1])


def test_face_that_is_followed():
    left, right = seen((0, 0, 100, 100)), seen((300, 0, 390, 90))
    assert follow([left, right], None) is left
    assert follow([left, right], seen((310, 5, 395, 95))) is right
    assert follow([left, right], seen((800, 0, 900, 90))) is left
    small = seen((300, 0, 340, 40))
    assert follow([left, small], seen((300, 0, 345, 45))) is left


def test_video_pass(tmp_path):
    """Positions come back in the video's pixels; a few pictures a second are looked at."""
    reader = film(tmp_path / "a.mp4", [[(140 + i % 5, 80, 60)] for i in range(75)])
    finder, said = White(), []
    framing = frame_video(reader, finder, said.append)
    assert framing.report == FramingReport(frames=19, missing=0, several=0, shots=1)
    assert said == []
    assert finder.shapes[0] == (240, 320, 3)
    assert framing.at(0).center_x == pytest.approx(172, abs=2)
    assert framing.at(0).center_y == pytest.approx(110, abs=3)
    assert crop(next(iter(reader)).image, framing.at(0), 64).shape == (64, 64, 3)


def test_large_videos_are_looked_at_small(tmp_path):
    reader = film(tmp_path / "a.mp4", [[(1600, 400, 200)]] * 4, size=(1080, 2560))
    finder = White()
    framing = frame_video(reader, finder)
    assert finder.shapes[0] == (540, 1280, 3)
    assert framing.at(0).center_x == pytest.approx(1700, abs=3)
    assert framing.at(0).side == pytest.approx(200 / 0.52, rel=0.03)


def test_pictures_without_a_face_hold_the_framing(tmp_path):
    walk = [[(10 + 4 * i, 90, 30)] for i in range(60)]
    pictures = walk + [[]] * 30 + [[(246, 90, 30)]] * 10
    said = []
    framing = frame_video(film(tmp_path / "a.mp4", pictures), White(), said.append)
    assert framing.report.missing == 8
    assert framing.report.frames == 25
    assert said == []
    assert framing.shots[0].moving
    held = [framing.at(t).center_x for t in (2.9, 3.2, 3.5)]
    assert 235 < held[0] <= held[1] <= held[2] < 262


def test_a_face_that_comes_with_a_cut_begins_a_shot(tmp_path):
    said = []
    framing = frame_video(film(tmp_path / "a.mp4", [[]] * 30 + [[(100, 90, 60)]] * 30), White(), said.append)
    assert framing.starts == (0.0, 1.2)
    assert framing.at(0) == framing.at(1.16) == Framing(160, 120, 240)
    assert framing.at(1.2) == framing.at(2)
    assert framing.at(1.2).center_x == pytest.approx(130, abs=2)
    assert framing.report.missing == 8
    assert said == [f"{tmp_path / 'a.mp4'}: 2 shots, 1 without a face: each is framed for itself"]


def test_several_faces_are_told(tmp_path):
    said = []
    framing = frame_video(film(tmp_path / "a.mp4", [[(40, 60, 60), (220, 100, 40)]] * 20), White(), said.append)
    assert framing.report.several == framing.report.frames == 5
    assert framing.at(0).center_x < 130
    assert "several faces in 5 of 5" in said[0]


def test_no_face_at_all(tmp_path):
    finder = White()
    with pytest.raises(InputError, match=r"no face found in .*a\.mp4: none of the 63 pictures"):
        frame_video(film(tmp_path / "a.mp4", [[]] * 250), finder, lambda _: None)
    assert finder.thorough[:20] == [True] * 20
    assert sum(finder.thorough[20:]) == 5


def test_of_long_videos_fewer_pictures_are_looked_at(tmp_path, monkeypatch):
    finder = White()
    monkeypatch.setattr("dagan.media.shots.MOST_SAMPLES", 5)
    assert frame_video(film(tmp_path / "a.mp4", [[(140, 80, 60)]] * 75), finder).report.frames == 5


def test_cut_off_video_is_told_and_framed(tmp_path):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 60, (240, 320, 3), dtype=np.uint8) for _ in range(100)]
    with VideoWriter(tmp_path / "whole.mp4", 320, 240) as writer:
        for index, image in enumerate(noise):
            image[80:140, 140:200] = 255
            writer.write(image, Fraction(index, 25))
    data = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 6 // 10])
    said = []
    framing = frame_video(open_video(tmp_path / "cut.mp4"), White(), said.append)
    assert framing.report.frames < 25
    assert "cut off" in said[0]


def test_real_face_moving_in_a_video(tmp_path, finder, astronaut):
    """The astronaut's head sways by 40 pixels: one fixed square holds it, the face about half of its height."""
    with VideoWriter(tmp_path / "a.mp4", 480, 360) as writer:
        for index in range(50):
            shift = round(20 * np.sin(index / 6))
            frame = Image.fromarray(astronaut).transform((480, 360), Image.Transform.AFFINE, (0.8, 0, 30 - shift, 0, 0.8, 0))
            writer.write(np.asarray(frame), Fraction(index, 25))
    reader = open_video(tmp_path / "a.mp4")
    framing = frame_video(reader, finder, lambda _: None)
    (shot,) = framing.shots
    assert not shot.moving
    assert framing.report.missing <= 1
    assert 0.35 < shot.face_height / shot.side < 0.6
    assert framing.at(0).center_x == pytest.approx((226 - 30) / 0.8, abs=20)


def test_rotated_video_is_framed_as_seen(tmp_path):
    path = tmp_path / "a.mp4"
    container = av.open(str(path), "w")
    stream = container.add_stream("libx264", rate=25)
    stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
    stream.set_display_rotation(-90)
    image = np.zeros((240, 320, 3), np.uint8)
    image[20:60, 30:70] = 255  # stored at the upper left: seen at the upper right
    for packet in [*stream.encode(av.VideoFrame.from_ndarray(image)), *stream.encode(None)]:
        container.mux(packet)
    container.close()
    framing = frame_video(open_video(path), White())
    assert (framing.at(0).center_x, framing.at(0).center_y) == pytest.approx((200, 50), abs=2)
