"""What changes within a video: size, shape of pixels, range, matrix and kind of pixels; and interlaced lines."""

from fractions import Fraction

import av
import numpy as np
import pytest

from dagan.data.clips import Clip
from dagan.media.decode import RandomReader, probe, read_clip
from dagan.media.video import open_video
from dagan.media.view import MiddleView, read_view

FRAMES = 6  # of each part


def disc(width, height, aspect=Fraction(1)):
    """A white disc on grey in the middle, a third of the shorter side in radius, as it is stored with pixels of that shape."""
    rows, columns = np.mgrid[0:height, 0:width]
    radius = min(width * aspect, height) / 3
    inside = ((columns - width / 2) * float(aspect)) ** 2 + (rows - height / 2) ** 2 < float(radius) ** 2
    return np.where(inside[..., None], 250, 70).astype(np.uint8).repeat(3, axis=2)


def part(path, picture, start, aspect=Fraction(1), pixels="yuv420p", matrix=6, color_range=1, codec="mpeg2video"):
    """A transport stream of FRAMES frames of one picture, from the frame number `start` on; its bytes."""
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream(codec, rate=25, options={"crf": "4"} if codec == "libx264" else {"qmin": "1", "qmax": "1"})
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = pixels
        context = stream.codec_context
        context.sample_aspect_ratio, context.colorspace, context.color_range = aspect, matrix, color_range
        image = av.VideoFrame.from_ndarray(picture)
        for i in range(FRAMES):
            scaler = 5 if matrix == 6 else matrix  # the scaler's number
            frame = image.reformat(format=pixels, dst_colorspace=scaler, src_color_range=2, dst_color_range=color_range)
            frame.pts, frame.time_base = start + i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


def joined(tmp_path, *parts):
    """One stream of parts (keywords of `part`), one after the other."""
    data = [part(tmp_path / "part.ts", start=2 * FRAMES * i, **options) for i, options in enumerate(parts)]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(data))
    return path


def extent(image):
    """Width and height of the disc."""
    rows, columns = np.nonzero(image[..., 1] > 160)
    return np.ptp(columns) + 1, np.ptp(rows) + 1


def pictures_everywhere(path, size=96):
    """The video's whole frames, and the squares that animation without cropping, training from memory and from disk see of them."""
    with open_video(path) as reader:
        frames = list(reader)
        whole = MiddleView(reader.width, reader.height)
        squares = np.stack([square for _, square in read_view(reader, whole, size)])
    clip = Clip(path, path.name, "x")
    trained = read_clip(clip, size).transpose(0, 2, 3, 1)
    assert np.array_equal(trained, squares)
    order = [len(squares) - 1, 0, len(squares) // 2]
    assert np.array_equal(RandomReader(size).read(clip, probe(clip), order).transpose(0, 2, 3, 1), squares[order])
    return frames, squares


@pytest.mark.parametrize("sizes", [[(640, 360), (360, 640)], [(360, 640), (640, 360)], [(320, 240), (640, 480)]], ids=str)
@pytest.mark.parametrize("codec", ["mpeg2video", "libx264"])
def test_proportions_are_kept_when_the_size_changes(tmp_path, sizes, codec):
    path = joined(tmp_path, *({"picture": disc(*size), "codec": codec} for size in sizes))
    frames, squares = pictures_everywhere(path)
    assert len(frames) >= 2 * FRAMES - 1
    for frame, square in zip(frames, squares, strict=True):
        assert frame.image.shape == (sizes[0][1], sizes[0][0], 3)
        for image in (frame.image, square):
            width, height = extent(image)
            assert abs(width - height) <= 2
        assert extent(square)[0] == pytest.approx(2 * 96 / 3, abs=2)  # its own middle, without the black beside it
    assert extent(frames[0].image)[0] == pytest.approx(2 * min(sizes[0]) / 3, abs=2)
    fit = min(sizes[0][0] / sizes[1][0], sizes[0][1] / sizes[1][1])
    assert extent(frames[-1].image)[0] == pytest.approx(fit * 2 * min(sizes[1]) / 3, abs=2)


@pytest.mark.parametrize(
    ("codec", "aspects"),
    [
        ("mpeg2video", (Fraction(4, 3), Fraction(1))),
        ("libx264", (Fraction(4, 3), Fraction(1))),
        ("libx264", (Fraction(1), Fraction(4, 3))),
        ("libx264", (Fraction(16, 15), Fraction(64, 45))),
    ],
)
def test_proportions_are_kept_when_the_shape_of_pixels_changes(tmp_path, aspects, codec):
    path = joined(tmp_path, *({"picture": disc(320, 240, aspect), "aspect": aspect, "codec": codec} for aspect in aspects))
    frames, squares = pictures_everywhere(path)
    assert len(frames) == 2 * FRAMES
    assert frames[0].image.shape[1] == round(320 * aspects[0])
    for image in (*(frame.image for frame in frames), *squares):
        width, height = extent(image)
        assert abs(width - height) <= 2


@pytest.mark.parametrize(
    "change",
    [
        {"color_range": 2},
        {"matrix": 1},
        {"pixels": "yuv422p"},
        {"pixels": "yuv444p10le"},
        {"matrix": 9, "color_range": 2, "pixels": "yuv444p"},
    ],
    ids=str,
)
def test_colours_stay_when_their_coding_changes(tmp_path, change):
    picture = np.full((96, 128, 3), (200, 90, 40), np.uint8)
    picture[:, 64:] = (40, 120, 210)
    path = joined(tmp_path, {"picture": picture, "codec": "libx264"}, {"picture": picture, "codec": "libx264", **change})
    frames, _ = pictures_everywhere(path)
    assert len(frames) == 2 * FRAMES
    for frame in frames:
        for x, colour in ((30, (200, 90, 40)), (98, (40, 120, 210))):
            assert np.abs(frame.image[40:60, x - 8 : x + 8].reshape(-1, 3).mean(0) - colour).max() < 4


def interlaced(path, flagged=True, rotation=0):
    """A bright bar that moves 8 pixels a field, and the picture that a camera would have taken of each upper field's moment."""
    moments = np.full((2 * FRAMES, 96, 256, 3), 60, np.uint8)
    for i, moment in enumerate(moments):
        moment[:, 40 + 8 * i : 64 + 8 * i] = 220
    options = {"flags": "+ilme+ildct", "top": "1"} if flagged else {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 256, 96, "yuv420p", 20_000_000
        if rotation:
            stream.set_display_rotation(rotation)
        for i in range(FRAMES):
            woven = moments[2 * i].copy()
            woven[1::2] = moments[2 * i + 1, 1::2]
            frame = av.VideoFrame.from_ndarray(woven)
            frame.pts, frame.time_base = i, Fraction(1, 25)
            if flagged:
                frame = _as_interlaced(frame)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path, moments[::2]


def _as_interlaced(frame):
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base),
        graph.add("format", "yuv420p"),
        graph.add("setfield", "tff"),
        graph.add("buffersink"),
    ).configure()
    graph.vpush(frame)
    return graph.vpull()


def combs(image):
    """How much neighbouring lines differ, of 255: interlaced motion looks like a comb."""
    grey = image[8:-8].astype(int).mean(axis=2)
    return np.abs(grey[1:-1] - (grey[:-2] + grey[2:]) / 2).mean()


@pytest.mark.parametrize("suffix", ["mpg", "ts", "mkv"])
def test_interlaced_frames_are_made_whole_and_keep_their_times(tmp_path, suffix):
    path, moments = interlaced(tmp_path / f"a.{suffix}")
    frames, squares = pictures_everywhere(path)
    assert [frame.time for frame in frames] == [Fraction(i, 25) for i in range(FRAMES)]
    assert [frame.duration for frame in frames] == [Fraction(1, 25)] * FRAMES
    for frame, moment in zip(frames, moments, strict=True):
        assert combs(frame.image) < 2
        assert np.abs(frame.image.astype(int) - moment).mean() < 6
    assert all(combs(square) < 3 for square in squares)
    small = list(open_video(path).frames(step=2, max_side=128))
    assert [frame.index for frame in small] == [0, 2, 4]


def test_lines_of_progressive_frames_are_left_alone(tmp_path):
    path, _ = interlaced(tmp_path / "a.mpg", flagged=False)
    assert all(combs(frame.image) > 5 for frame in open_video(path))


def test_a_turned_interlaced_video_is_turned_after(tmp_path):
    path, moments = interlaced(tmp_path / "a.mov", rotation=90)
    for frame, moment in zip(open_video(path), moments, strict=True):
        assert np.abs(frame.image.astype(int) - np.rot90(moment)).mean() < 6


def test_transparent_video_is_laid_on_white(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuva420p"
        pixels = np.zeros((48, 64, 4), np.uint8)
        pixels[..., 0] = 200
        pixels[:, 32:, 3] = 255
        frame = av.VideoFrame.from_ndarray(pixels, format="rgba")
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    image = next(iter(open_video(path))).image
    assert image[:, :30].min() > 250
    assert np.abs(image[:, 34:].astype(int) - (200, 0, 0)).max() < 6
