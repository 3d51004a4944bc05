"""Pictures and videos in HDR and in wide gamuts, made from standard ones."""

from fractions import Fraction

import av
import numpy as np

from dagan.media.colour import BT2020, DISPLAY_P3, HLG, PQ

BT709 = 1
TO_BT2020 = np.linalg.inv([[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]])
TO_DISPLAY_P3 = np.linalg.inv([[1.224940, -0.224940, 0.0], [-0.042057, 1.042057, 0.0], [-0.019638, -0.078636, 1.098274]])


def encoded(picture, transfer, primaries):
    """The standard picture, its white at 100 cd/m2, as full-range values in [0, 1] of another kind of colour."""
    light = (picture / 255) ** 2.4
    matrix = {BT2020: TO_BT2020, DISPLAY_P3: TO_DISPLAY_P3, BT709: np.eye(3)}[primaries]
    light = np.clip(light @ matrix.T, 0, None)
    if transfer == PQ:
        power = (light / 100) ** (2610 / 16384)
        return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    if transfer == HLG:
        display = light / 10  # of a peak of 1000 cd/m2
        luminance = display @ [0.2627, 0.6780, 0.0593]
        scene = display * np.maximum(luminance, 1e-9)[..., None] ** (1 / 1.2 - 1)
        high = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
        return np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)
    return light ** (1 / 2.4)


def write(path, values, transfer, primaries, pixels="yuv444p10le", color_range=1, matrix=9):
    """A lossless video of three equal frames with these tags, or of a list of frames."""
    pictures = values if isinstance(values, list) else [values] * 3
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixels
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.color_range, context.colorspace = transfer, primaries, color_range, matrix
        for i, picture in enumerate(pictures):
            image = av.VideoFrame.from_ndarray(np.rint(picture * 65535).astype(np.uint16), format="rgb48le")
            frame = image.reformat(format=pixels, dst_colorspace=matrix, src_color_range=2, dst_color_range=color_range)
            frame.pts, frame.time_base = i, Fraction(1, 25)
            frame.color_trc, frame.color_primaries = transfer, primaries
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
