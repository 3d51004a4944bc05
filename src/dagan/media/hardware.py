"""Video encoders of graphics cards and processors, where one truly opens: a driver or card that is missing shows only then.

They spare the processor, and take more bytes for the same quality than libx264 does: so they are used when asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

HARDWARE = "hardware"  # in place of an encoder's name
SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")


@dataclass(frozen=True)
class HardwareEncoder:
    """name: FFmpeg's. pixel_format: that it takes. options: constant quality, about libx264's at crf 18."""

    name: str
    pixel_format: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)


ENCODERS = (
    HardwareEncoder("h264_nvenc", options={"preset": "p5", "rc": "vbr", "cq": "19", "b": "0"}),
    HardwareEncoder("h264_videotoolbox", options={"flags": "+qscale", "global_quality": str(65 * 118)}),  # 65 of 100, in FFmpeg's lambda
    HardwareEncoder("h264_qsv", "nv12", {"global_quality": "18"}),
    HardwareEncoder("h264_amf", "nv12", {"rc": "cqp", "qp_i": "18", "qp_p": "20"}),
)


def find_hardware_encoder(width: int, height: int) -> HardwareEncoder | None:
    """The first of `ENCODERS` that opens on this machine for pictures of that size; None where none does."""
    return next((encoder for encoder in ENCODERS if _opens(encoder, width, height)), None)


def _opens(encoder: HardwareEncoder, width: int, height: int) -> bool:
    import av

    try:
        context = av.CodecContext.create(encoder.name, "w")
        assert isinstance(context, av.VideoCodecContext)
        context.width, context.height, context.pix_fmt = width, height, encoder.pixel_format
        context.time_base = Fraction(1, 25)
        context.options = encoder.options
        context.open()
    except (av.FFmpegError, ValueError):
        return False
    return True
