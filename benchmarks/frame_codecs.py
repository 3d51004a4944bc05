"""Measures how frames of clips are best kept in shards: bytes, loss, and the time to write a frame and to read a random pair.

python benchmarks/frame_codecs.py CLIPS [--clips 20] [--size 256] [--every 2] prints a line for each encoding. The last line decodes pairs
from the clips themselves, as `data.storage=disk` does. Loss is measured against the frames as they are decoded from the clips.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import av
import numpy as np
from PIL import Image
from skimage.metrics import structural_similarity

from dagan.data.clips import find_clips
from dagan.media.decode import RandomReader, probe, read_clip

# An encoding turns the frames of a clip (N x S x S x 3) into one block of bytes for each, and reads two of them again.
Blocks = list[bytes]
Encode = Callable[[np.ndarray], Blocks]
Decode = Callable[[Blocks, Sequence[int]], list[np.ndarray]]


def by_pillow(frames: np.ndarray, **settings: object) -> Blocks:
    blocks = []
    for frame in frames:
        out = io.BytesIO()
        Image.fromarray(frame).save(out, **settings)  # type: ignore[arg-type]
        blocks.append(out.getvalue())
    return blocks


def from_pillow(blocks: Blocks, wanted: Sequence[int]) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(blocks[i])).convert("RGB")) for i in wanted]


def as_video(frames: np.ndarray, crf: int, pixels: str) -> Blocks:
    """Encodes an MP4 file of key frames alone, which is one block for the whole clip."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": str(crf), "g": "1", "preset": "medium"})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pixels
        stream.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return [out.getvalue()]


def from_video(blocks: Blocks, wanted: Sequence[int]) -> list[np.ndarray]:
    found = []
    with av.open(io.BytesIO(blocks[0])) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.thread_count = "NONE", 1
        for i in wanted:
            assert stream.average_rate is not None
            assert stream.time_base is not None
            container.seek(round(i / stream.average_rate / stream.time_base), stream=stream)
            found.append(next(container.decode(stream)).to_ndarray(format="rgb24"))
    return found


def encodings() -> dict[str, tuple[Encode, Decode]]:
    found: dict[str, tuple[Encode, Decode]] = {}
    for quality in (85, 90, 95):
        for name, sampling in (("4:2:0", 2), ("4:4:4", 0)):
            settings = {"format": "JPEG", "quality": quality, "subsampling": sampling, "optimize": True}
            found[f"JPEG {quality} {name}"] = partial(by_pillow, **settings), from_pillow
    for quality in (80, 90, 95):
        found[f"WebP {quality}"] = partial(by_pillow, format="WEBP", quality=quality, method=4), from_pillow
    found["WebP lossless"] = partial(by_pillow, format="WEBP", lossless=True, quality=50, method=3), from_pillow
    for quality in (70, 85):
        settings = {"format": "AVIF", "quality": quality, "subsampling": "4:2:0", "speed": 8, "max_threads": 1}
        found[f"AVIF {quality} 4:2:0"] = partial(by_pillow, **settings), from_pillow
    for crf in (16, 20):
        found[f"H.264 intra {crf}"] = partial(as_video, crf=crf, pixels="yuv420p"), from_video
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("clips", type=Path)
    parser.add_argument("--clips", type=int, default=20, dest="count")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--every", type=int, default=2)
    parser.add_argument("--frames", type=int, default=24, help="At most so many frames of a clip are encoded.")
    arguments = parser.parse_args()
    clips = find_clips(arguments.clips)
    clips = [clips[i] for i in np.linspace(0, len(clips) - 1, arguments.count).astype(int)]
    frames = [read_clip(c, arguments.size)[:: arguments.every][: arguments.frames].transpose(0, 2, 3, 1) for c in clips]
    frames = [np.ascontiguousarray(f) for f in frames if len(f) > 1]
    total = sum(len(f) for f in frames)
    rng = np.random.default_rng(0)
    print(f"{len(frames)} clips, {total} frames of {arguments.size} x {arguments.size}; one process, one thread")
    print(f"{'encoding':18} {'bytes/frame':>11} {'PSNR dB':>8} {'SSIM':>7} {'write ms/frame':>14} {'read ms/pair':>12} {'pairs/s':>8}")
    for name, (encode, decode) in encodings().items():
        begun = time.perf_counter()
        blocks = [encode(f) for f in frames]
        writing = (time.perf_counter() - begun) / total
        pairs = [(b, rng.integers(0, len(f), 2).tolist()) for f, b in zip(frames, blocks, strict=True) for _ in range(6)]
        begun = time.perf_counter()
        for block, wanted in pairs:
            decode(block, wanted)
        reading = (time.perf_counter() - begun) / len(pairs)
        errors, similar = [], []
        for f, b in zip(frames, blocks, strict=True):
            wanted = [0, len(f) // 2]
            for i, result in zip(wanted, decode(b, wanted), strict=True):
                errors.append(float(np.mean((f[i].astype(np.float64) - result) ** 2)))
                similar.append(structural_similarity(f[i], result, channel_axis=2))
        noise = 10 * np.log10(255**2 / np.mean(errors)) if np.mean(errors) else float("inf")
        size = sum(len(b) for clip in blocks for b in clip) / total
        print(f"{name:18} {size:11.0f} {noise:8.1f} {np.mean(similar):7.4f} {writing * 1e3:14.2f} {reading * 1e3:12.2f} {1 / reading:8.0f}")
    reader, probes = RandomReader(arguments.size), [probe(c) for c in clips]
    for clip, known in zip(clips, probes, strict=True):
        reader.read(clip, known, [0])
    chosen = [(c, p, rng.integers(0, p.count, 2).tolist()) for c, p in zip(clips, probes, strict=True) for _ in range(6)]
    begun = time.perf_counter()
    for clip, known, wanted in chosen:
        reader.read(clip, known, wanted)
    reading = (time.perf_counter() - begun) / len(chosen)
    print(f"{'the clips':18} {'':11} {'':8} {'':7} {'':14} {reading * 1e3:12.2f} {1 / reading:8.0f}")


if __name__ == "__main__":
    main()
