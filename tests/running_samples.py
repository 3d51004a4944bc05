"""A tiny model file and small clips, for the tests of everything that runs a model on files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from dagan.config import DepthConfig, GeneratorConfig, HourglassConfig, KeypointConfig, ModelConfig, MotionConfig
from dagan.models.dagan import DaGAN
from dagan.weights import save_model

FRAMES = 11  # of the driving clip: not a multiple of the batch sizes used

TINY = ModelConfig(
    name="tiny-64",
    image_size=64,
    motion_size=32,
    depth=DepthConfig(encoder="lite", encoder_widths=(8, 8, 8, 8, 8), decoder_widths=(8, 8, 8, 8, 8)),
    keypoints=KeypointConfig(count=6, hourglass=HourglassConfig(width=8, max_width=16, levels=2), kernel=3),
    motion=MotionConfig(hourglass=HourglassConfig(width=8, max_width=16, levels=2), kernel=3),
    generator=GeneratorConfig(decoder="pyramid", width=8, max_width=16, downs=2, blocks=1, align_depth=True),
)


def tiny_model(seed: int = 0, config: ModelConfig = TINY) -> DaGAN:
    """A random model whose keypoints follow the picture: without training, heatmaps are too flat for that."""
    torch.manual_seed(seed)
    model = DaGAN(config).eval()
    with torch.no_grad():
        model.keypoint_detector.heatmap.weight.mul_(20)
    return model


def save_tiny_model(path: Path, seed: int = 0, config: ModelConfig = TINY) -> Path:
    save_model(path, tiny_model(seed, config))
    return path


def moving_pictures(count: int, width: int = 64, height: int = 64, seed: int = 0) -> list[np.ndarray]:
    """Waves under a bright disc that wanders: every frame differs, and is its own place in a sequence."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 6, 3)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    pictures = []
    for i in range(count):
        disc = np.hypot(x - width * (0.5 + 0.2 * np.sin(0.3 * i)), y - height * (0.5 + 0.15 * np.cos(0.4 * i))) < min(width, height) / 5
        waves = [0.5 + 0.3 * np.sin(x / 7 + p) * np.cos(y / 9 + 0.1 * i) for p in phase]
        pictures.append((np.stack([np.where(disc, 0.9 - 0.2 * c, w) for c, w in enumerate(waves)], -1) * 255).astype(np.uint8))
    return pictures


def write_clip(
    path: Path, pictures: list[np.ndarray], *, times: list[Fraction] | None = None, sound: bool = False, rotation: int = 0
) -> Path:
    """An H.264 clip through plain PyAV; `times` in seconds (25 frames a second without), a tone as AAC, a display matrix."""
    ticks = 12_800
    times = times or [Fraction(i, 25) for i in range(len(pictures))]
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"crf": "12", "preset": "ultrafast"})
        video.height, video.width = pictures[0].shape[:2]
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = Fraction(1, ticks)
        if rotation:
            video.set_display_rotation(rotation)
        packets = []
        audio = container.add_stream("aac", rate=44_100, layout="mono") if sound else None
        for picture, time in zip(pictures, times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(time * ticks), Fraction(1, ticks)
            packets += video.encode(frame)
        packets += video.encode()
        if audio is not None:
            tone = 0.2 * np.sin(np.arange(int(44_100 * (times[-1] + Fraction(1, 25)))) / 15)
            for start in range(0, len(tone), 1024):
                frame = av.AudioFrame.from_ndarray(tone[None, start : start + 1024].astype(np.float32), format="fltp", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = 44_100, start, Fraction(1, 44_100)
                packets += audio.encode(frame)
            packets += audio.encode()
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            container.mux(packet)
    return path


def frame_times(path: Path) -> list[Fraction]:
    """Presentation times in seconds, from the first frame on, read with plain PyAV."""
    with av.open(str(path)) as container:
        stamps = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    return [stamp - stamps[0] for stamp in stamps]


def sound_packets(path: Path) -> list[bytes]:
    """The contents of all sound packets; empty for a silent file."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return []
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def decoded(path: Path) -> np.ndarray:
    """N x H x W x 3 uint8: all frames, with plain PyAV."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def assert_refused(call: Callable[[], tuple[int, str, str]], words: str, folders: Sequence[Path], told: object) -> None:
    """`call` runs a command: it must end with status 2 and one line with `words`, and leave every file in the folders as it is."""
    kept = _contents(folders)
    status, printed, complaints = call()
    shown = (told, complaints)
    assert status == 2, shown
    assert printed == "", shown
    assert complaints.count("\n") == 1, shown
    assert complaints.startswith("dagan: "), shown
    assert words in complaints, shown
    assert _contents(folders) == kept, shown


def _contents(folders: Sequence[Path]) -> dict[Path, bytes]:
    return {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}
