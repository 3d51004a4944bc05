"""Small videos made on the spot: known pictures, known times, a known sound."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from dagan.media.framing import FaceFinder

TICKS = 10_000


def chirp(seconds: float, rate: int) -> np.ndarray:
    """float32 samples of a rising tone in bursts: shifted copies of it do not look alike."""
    t = np.arange(int(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * (300 + 200 * t) * t) * (np.floor(t * 10) % 3 > 0)).astype(np.float32)


def picture(index: int, width: int, height: int) -> np.ndarray:
    """A flat grey that tells the frame's index, with a red, green, blue and white corner."""
    image = np.full((height, width, 3), 40 + 3 * (index % 60), np.uint8)
    h, w = height // 4, width // 4
    image[:h, :w], image[:h, -w:], image[-h:, :w], image[-h:, -w:] = (220, 20, 20), (20, 200, 20), (20, 20, 220), (250, 250, 250)
    return image


def make_video(
    path: Path,
    times: list[Fraction],
    *,
    width: int = 64,
    height: int = 48,
    video_codec: str = "libx264",
    ticks: int = TICKS,
    sound: str | None = None,
    sound_rate: int = 44_100,
    sound_start: float = 0.0,
    sound_seconds: float | None = None,
    rotation: int = 0,
    hflip: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """Writes a video with frames at `times` and, where a codec is named, the chirp as sound; plain PyAV, none of our code."""
    container = av.open(str(path), "w", options=options or {})
    stream = container.add_stream(video_codec, rate=25, options={"crf": "10"} if video_codec == "libx264" else {})
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.time_base = Fraction(1, ticks)
    if rotation or hflip:
        stream.set_display_rotation(rotation, hflip=hflip)
    audio = None
    if sound:
        audio = container.add_stream(sound, rate=sound_rate)
        audio.layout = "mono"
    packets = []
    for index, time in enumerate(times):
        frame = av.VideoFrame.from_ndarray(picture(index, width, height))
        frame.pts, frame.time_base = round(time * ticks), Fraction(1, ticks)
        packets += stream.encode(frame)
    packets += stream.encode(None)
    if audio is not None:
        samples = chirp(float(times[-1]) + 0.04 if sound_seconds is None else sound_seconds, sound_rate)
        for start in range(0, len(samples), 1024):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024].copy(), format="fltp", layout="mono")
            frame.sample_rate, frame.time_base = sound_rate, Fraction(1, sound_rate)
            frame.pts = start + round(sound_start * sound_rate)
            packets += audio.encode(frame)
        packets += audio.encode(None)
    for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
        container.mux(packet)
    container.close()
    return path


def even_times(count: int, rate: int = 25) -> list[Fraction]:
    return [Fraction(i, rate) for i in range(count)]


@pytest.fixture
def video(tmp_path: Path) -> Callable[..., Path]:
    """make(name, times=..., **as make_video): a new file in the test's folder."""

    def make(name: str, times: list[Fraction] | None = None, **options: object) -> Path:
        return make_video(tmp_path / name, even_times(50) if times is None else times, **options)

    return make


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """512 x 512 x 3: a portrait whose face lies at about x 180 to 271, y 70 to 179."""
    from skimage import data

    return data.astronaut()


@pytest.fixture(scope="session")
def finder() -> FaceFinder:
    return FaceFinder()
