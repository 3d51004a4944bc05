"""What the live camera's pictures cost the server on their way: as single JPEG files, as through a WebSocket, and as video, as with WebRTC.

    python benchmarks/live_transport.py [VIDEO]

For each frame the server decodes a picture of 640 x 480 and encodes one of 256 x 256. Milliseconds of processor time on one thread are
printed, and bytes. VP8 and H.264 are the codecs that WebRTC has in every browser, with settings for live use. Network, jitter buffers and
encryption are not part of it.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import islice

import av
import numpy as np
from PIL import Image

from dagan.examples import PORTRAIT

FRAMES = 100
CODECS = {
    "VP8": ("libvpx", {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "threads": "1"}, 900_000),
    "H.264": ("libx264", {"preset": "ultrafast", "tune": "zerolatency", "threads": "1"}, 900_000),
}


def pictures() -> list[np.ndarray]:
    """Returns frames of 640 x 480: a video's, or the bundled portrait on its way to and fro."""
    if len(sys.argv) > 1:
        with av.open(sys.argv[1]) as container:
            return [frame.to_ndarray(width=640, height=480, format="rgb24") for frame in islice(container.decode(video=0), FRAMES)]
    photo = Image.open(PORTRAIT).convert("RGB").resize((800, 800))
    return [np.asarray(photo.crop((80 + x, 20, 720 + x, 500))) for x in (round(40 * np.sin(i / 8)) for i in range(FRAMES))]


def timed(function: Callable[[], int]) -> tuple[float, int]:
    """Returns milliseconds of processor time a frame, and what the function returns."""
    began = time.process_time()
    result = function()
    return 1000 * (time.process_time() - began) / FRAMES, result


def jpeg(picture: np.ndarray, quality: int) -> bytes:
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "JPEG", quality=quality)
    return data.getvalue()


def encoded(codec: str, frames: list[np.ndarray]) -> list[av.Packet]:
    name, options, rate = CODECS[codec]
    context = av.CodecContext.create(name, "w")
    context.height, context.width = frames[0].shape[:2]
    context.pix_fmt, context.time_base, context.bit_rate, context.options = "yuv420p", Fraction(1, 30), rate, options
    packets = []
    for i, picture in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
        frame.pts = i
        packets += context.encode(frame)
    return packets + context.encode(None)


def decoded(codec: str, packets: list[av.Packet]) -> int:
    context = av.CodecContext.create({"VP8": "vp8", "H.264": "h264"}[codec], "r")
    context.thread_count = 1
    for packet in packets:
        for frame in context.decode(packet):
            frame.to_ndarray(format="rgb24")
    return sum(packet.size for packet in packets)


def main() -> None:
    """Prints the table."""
    large = pictures()
    small = [np.asarray(Image.fromarray(picture).resize((256, 256))) for picture in large]
    sent = [jpeg(picture, 85) for picture in large]
    reading, _ = timed(lambda: sum(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).size for data in sent))
    writing, size = timed(lambda: sum(len(jpeg(picture, 88)) for picture in small))
    print("| way | decode 640 x 480 | encode 256 x 256 | both | kB a frame there | kB a frame back |")
    print("| --- | --- | --- | --- | --- | --- |")
    there = sum(map(len, sent)) / FRAMES / 1000
    print(f"| JPEG | {reading:.1f} ms | {writing:.1f} ms | {reading + writing:.1f} ms | {there:.0f} | {size / FRAMES / 1000:.0f} |")
    for codec in CODECS:
        packets = encoded(codec, large)
        reading, there = timed(lambda codec=codec, packets=packets: decoded(codec, packets))
        writing, back = timed(lambda codec=codec: sum(packet.size for packet in encoded(codec, small)))
        kilobytes = [total / FRAMES / 1000 for total in (there, back)]
        print(f"| {codec} | {reading:.1f} ms | {writing:.1f} ms | {reading + writing:.1f} ms | {kilobytes[0]:.0f} | {kilobytes[1]:.0f} |")


if __name__ == "__main__":
    main()
