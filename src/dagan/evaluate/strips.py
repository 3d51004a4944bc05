"""Strips of the report: which pairs are shown, and their pictures as part of the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from dagan.evaluate.records import Evaluation, Metric

# The first of these that was measured ranks the pairs: what looks right to people, then geometry, then pixels.
RANKING = ("lpips", "lpips_squeeze", "akd", "csim", "aed", "prmse", "ssim", "l1")
WIDEST = 800  # pixels; wider strips are made smaller, so that a page stays small


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A pair to show and why: "best", "median" or "worst"."""

    pair: str
    why: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Strip:
    """A picture as data URI, its width as a share, in (0, 1], of the pair's widest strip, and that one's width in pixels; uri is None
    where there is no readable file."""

    name: str
    uri: str | None
    share: float = 1.0
    widest: int = 1


def ranking_metric(metrics: Sequence[Metric], measured: Mapping[str, Mapping[str, float]]) -> Metric | None:
    """By which pairs are ranked: of the metrics that have values (key -> pair -> mean), the first of RANKING, otherwise the first."""
    known = {metric.key: metric for metric in metrics if measured.get(metric.key)}
    return next((known[key] for key in RANKING if key in known), next(iter(known.values()), None))


def choose(means: Mapping[str, float], metric: Metric) -> list[Shown]:
    """Best, median and worst pairs of pair -> mean, no pair twice: two of each from nine pairs on, otherwise one."""
    order = sorted(means, key=lambda pair: (means[pair] if metric.better == "lower" else -means[pair], pair))
    each = 2 if len(order) >= 9 else 1
    middle = max(0, (len(order) - each) // 2)
    wanted = [(pair, "best") for pair in order[:each]]
    wanted += [(pair, "median") for pair in order[middle : middle + each]] if len(order) > 2 else []
    wanted += [(pair, "worst") for pair in order[::-1][:each][::-1]] if len(order) > 1 else []
    return [Shown(pair=pair, why=why, value=means[pair]) for pair, why in wanted]


def strips(folder: Path, evaluation: Evaluation, pair: str) -> list[Strip]:
    """Source, driving and every method's strip of a pair; `folder` holds the run's pictures. Empty where the run has none."""
    if not any(pair in pictures for pictures in evaluation.pictures.values()):
        return []
    names = ("source", "driving", *evaluation.methods)
    read = {name: _read(folder, evaluation.pictures.get(name, {}).get(pair)) for name in names}
    widest = max((found[1] for found in read.values() if found), default=1)
    return [
        Strip(name=name, uri=found[0] if found else None, share=found[1] / widest if found else 1.0, widest=widest)
        for name, found in read.items()
    ]


def _read(folder: Path, name: str | None) -> tuple[str, int] | None:
    """The picture as data URI and its width before it was made smaller; None for a missing, broken or foreign file."""
    if name is None:
        return None
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):  # only pictures of the run go into a page that will be passed on
        return None
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            if picture.format == "JPEG" and width <= WIDEST:
                data = path.read_bytes()
            else:
                smaller = picture.convert("RGB")
                smaller.thumbnail((WIDEST, max(1, height)))
                buffer = io.BytesIO()
                smaller.save(buffer, "JPEG", quality=88)
                data = buffer.getvalue()
    except (OSError, UnidentifiedImageError):
        return None
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii"), width
