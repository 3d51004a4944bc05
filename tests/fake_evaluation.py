"""An evaluation run made of random numbers and drawn pictures, for tests of statistics and report; and models as methods."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dagan.engine.open import open_engine
from dagan.engine.sessions import file_digest
from dagan.evaluate.methods import ModelSpec
from dagan.evaluate.records import Evaluation, Metric, PairScores

L1 = Metric(key="l1", title="L1", better="lower", range="0 to 1", tool="dagan.evaluate.metrics.l1")
PSNR = Metric(key="psnr", title="PSNR", better="higher", range="0 to infinity, data range 1", tool="torchmetrics", unit="dB")
LPIPS = Metric(
    key="lpips", title="LPIPS (SqueezeNet)", better="lower", range="0 and up", tool="SqueezeNet 1.1, torchmetrics' linear weights"
)
AKD = Metric(key="akd", title="AKD", better="lower", range="0 and up", tool="Face Landmarker, 478 points", unit="px at 256")
CSIM = Metric(key="csim", title="CSIM", better="higher", range="-1 to 1", signed=True, tool="identity network")
POSE = Metric(key="prmse", title="Head-pose error", better="lower", range="0 to 180", tool="Face Landmarker", unit="degrees")
FLICKER = Metric(key="flicker", title="Flicker", better="lower", range="any", signed=True, tool="optical flow", per="clip")
FID = Metric(key="fid", title="FID (SqueezeNet features)", better="lower", range="0 and up", tool="Fréchet distance", per="set")
METRICS = {
    "reconstruction": (L1, PSNR, LPIPS, AKD, CSIM, POSE, FLICKER, FID),
    "cross-identity": (CSIM, POSE, FLICKER, FID),
}
NAMES = ("lite-256", "rgb-twin", "peer <A&B>", "fourth", "fifth", "copy")
# metric -> (value of the best method at 0 degrees, growth per degree, change from method to method, spread)
_SHAPE = {
    "l1": (0.03, 8e-4, 0.006, 0.006), "psnr": (27.0, -0.15, -1.2, 1.0), "lpips": (0.09, 0.003, 0.02, 0.015), "akd": (2.0, 0.09, 0.6, 0.5),
    "csim": (0.85, -0.006, -0.04, 0.05), "prmse": (1.5, 0.1, 0.5, 0.5), "flicker": (0.004, 0, 0.001, 0.001),
}  # fmt: skip
FRAMES = tuple(range(5, 65, 5))


def fake_evaluation(folder: Path | None = None, *, methods: int = 3, pairs: int = 40, protocol: str = "reconstruction") -> Evaluation:
    """`methods` methods, copy last where there are two or more; with `folder`, strips are drawn into it.

    Faces are missing in some frames; pair 3 has nothing for the second method, pair 5 a problem and half of its frames for the first.
    """
    names = NAMES[: methods - 1] + NAMES[-1:] if methods > 1 else NAMES[:1]
    metrics = METRICS[protocol]
    rng = np.random.default_rng(4)
    scores = []
    for p in range(pairs):
        driving, source = f"clip{p:02d}.mp4", f"clip{(p + (protocol != 'reconstruction')) % pairs:02d}.mp4"
        hard, angles = rng.normal(0, 1), np.abs(rng.normal(0, 14, len(FRAMES)))
        for m, name in enumerate(names):
            frames = FRAMES[:6] if (p, m) == (5, 0) else FRAMES
            values = {metric.key: _draw(rng, metric, m, hard, angles[: len(frames)]) for metric in metrics if metric.per != "set"}
            rotation = tuple(None if rng.random() < 0.02 else float(a) for a in angles[: len(frames)])
            missing = {"result": sum(v is None for v in values["csim"]), "driving": sum(r is None for r in rotation)}
            problem = "the result has 6 of 12 frames" if (p, m) == (5, 0) else None
            if (p, m) == (3, 1):
                frames, values, rotation, missing, problem = (), {}, (), {}, "no result <clip03> found in the folder"
            scores.append(PairScores(
                pair=f"{Path(source).stem}--{Path(driving).stem}", source=source, driving=driving, method=name, frames=frames,
                values=values, missing=missing, rotation=rotation, problem=problem,
            ))  # fmt: skip
    totals = {name: {"fid": 20.0 + 4 * m} for m, name in enumerate(names)}
    drawn = _strips(folder, names, dict.fromkeys(s.pair for s in scores)) if folder else {}
    settings = {"model": "lite-256", "weights": "sha256 0123abcd", "frames": "every 5th", "torch": "2.13.0"}
    return Evaluation(
        protocol=protocol,
        metrics=metrics,
        methods=names,
        scores=tuple(scores),
        settings=settings,
        totals=totals,
        pictures=drawn,  # type: ignore[arg-type]
    )


def _draw(rng: np.random.Generator, metric: Metric, method: int, hard: float, angles: np.ndarray) -> tuple[float | None, ...]:
    start, slope, step, spread = _SHAPE[metric.key]
    if metric.per == "clip":
        return (float(start + step * method + spread * abs(hard)),)
    sign = 1 if metric.better == "lower" else -1
    values = start + step * method + slope * angles * (1 + method) + spread * (sign * hard + 0.4 * rng.normal(size=len(angles)))
    faces = metric.key in ("akd", "csim", "prmse")
    return tuple(None if faces and rng.random() < 0.03 else float(v) for v in values)


def _strips(folder: Path, methods: tuple[str, ...], pairs: dict[str, None]) -> dict[str, dict[str, str]]:
    drawn: dict[str, dict[str, str]] = {}
    for row, name in enumerate(("source", "driving", *methods)):
        for number, pair in enumerate(pairs):
            strip = Image.new("RGB", (128 * 6, 128))
            for i in range(6):
                strip.paste(_face(hue=9 * number, turn=0 if name in ("source", "copy") else 6 * i - 15, blur=row), (128 * i, 0))
            path = folder / "strips" / f"{row}-{pair}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            strip.save(path, quality=85)
            drawn.setdefault(name, {})[pair] = path.relative_to(folder).as_posix()
    return drawn


def _face(hue: int, turn: int, blur: int) -> Image.Image:
    face = Image.new("HSV", (128, 128), (hue % 256, 60 + 10 * blur, 120))
    draw = ImageDraw.Draw(face)
    draw.ellipse((34 + turn / 2, 18, 94 + turn / 2, 110), fill=(20, 90, 220))
    for x in (50, 78):
        draw.ellipse((x - 5 + turn, 50, x + 5 + turn, 58), fill=(0, 0, 30))
    draw.arc((50 + turn, 74, 78 + turn, 92), 20, 160, fill=(0, 160, 140), width=3)
    return face.convert("RGB")


def model_spec(model: Path, keypoints: str = "auto") -> ModelSpec:
    """A model of 64 x 64 pictures as a method, named like its file, on the CPU."""
    return ModelSpec(
        name=model.stem, opener=partial(open_engine, str(model), device="cpu"), source=model.name, digest=file_digest(model), size=64,
        runtime="torch", device="cpu", precision="auto", keypoints=keypoints,
    )  # fmt: skip
