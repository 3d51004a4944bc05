"""Sound in tests: recordings of the chirp joined with whatever clocks, and what a player hears of a file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from dagan.media.container import start_time

RATE = 48_000


def heard(path):
    """Mono samples at 48 kHz as a player gives them, on the clock of the first video frame, and where they end (seconds)."""
    start, out, position = start_time(path), np.zeros(20 * RATE, np.float32), None
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("fltp", "mono", RATE)
        for decoded in container.decode(audio=0):
            time = decoded.pts * decoded.time_base - start
            decoded.pts = None
            for frame in resampler.resample(decoded):
                place = round(time * RATE)
                if position is not None and abs(place - position) < RATE // 20:
                    place = position  # time stamps are rounded, samples follow each other
                samples = frame.to_ndarray()[0]
                position = place + len(samples)
                samples = samples[max(0, -place) :]
                out[max(0, place) : max(0, place) + len(samples)] = samples
    return out, (position or 0) / RATE


def shift(a, b):
    """By how many seconds b comes after a, and how alike they are then (1: the same)."""
    n = min(len(a), len(b))
    product = np.fft.irfft(np.fft.rfft(a[:n], 2 * n).conj() * np.fft.rfft(b[:n], 2 * n))
    best = int(product.argmax())
    return (best - 2 * n if best > n else best) / RATE, product[best] / np.sqrt((a[:n] ** 2).sum() * (b[:n] ** 2).sum())


def chirp(seconds: float, rate: int = RATE) -> np.ndarray:
    """float32 samples of a rising tone in bursts: shifted copies of it do not look alike."""
    t = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * (300 + 200 * t) * t) * (np.floor(t * 10) % 3 > 0)).astype(np.float32)


def record(
    path: Path,
    times: list[Fraction],
    *,
    clock: float = 0.0,
    codec: str | None = "mp2",
    rate: int = RATE,
    layout: str = "mono",
    seconds: float | None = None,
    video_codec: str = "mpeg2video",
    container: str | None = None,
    late: float = 0.0,
) -> Path:
    """Writes frames of 64 x 48 at `times` with the chirp as their sound; the file's clock says `clock` seconds at its start.

    seconds: how long the sound lasts (by default as long as the pictures). late: by how much it starts after them. Plain PyAV.
    """
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(video_codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if video_codec == "mpeg2video":
            stream.codec_context.max_b_frames = 0
        sound = output.add_stream(codec, rate=rate, layout=layout) if codec else None
        packets = []
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 + 3 * (index % 60), np.uint8)).reformat(format="yuv420p")
            frame.pts, frame.time_base = round(time * 90_000), Fraction(1, 90_000)
            packets += _moved(stream.encode(frame), clock)
        packets += _moved(stream.encode(None), clock)
        if sound is not None:
            samples = chirp(float(times[-1]) + 0.04 if seconds is None else seconds, rate)
            channels = sound.codec_context.layout.nb_channels
            for start in range(0, len(samples), 1152):
                part = np.repeat(samples[start : start + 1152], channels)[None]
                frame = av.AudioFrame.from_ndarray(part, format="flt", layout=layout)
                frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), start
                packets += _moved(sound.encode(frame), clock + late)
            packets += _moved(sound.encode(None), clock + late)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            output.mux(packet)
    return path


def join(path: Path, *parts: Path) -> Path:
    """One file after the other, byte by byte, as recorders and download programs do."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def _moved(packets: list[av.Packet], clock: float) -> list[av.Packet]:
    for packet in packets:
        ticks = round(clock / packet.time_base)
        packet.pts += ticks
        packet.dts += ticks
    return packets
