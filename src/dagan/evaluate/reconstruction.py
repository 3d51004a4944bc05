"""Reconstruction of the same person: the first frame of a clip driven by its other frames (METHOD section 9).

Each figure stands beside that of the copy baseline, which answers every frame with the source itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dagan.evaluate import metrics
from dagan.evaluate.identity import IdentityNetwork
from dagan.evaluate.lpips import LPIPS
from dagan.geometry import resize
from dagan.media.video import open_video
from dagan.models.dagan import DaGAN

Image = NDArray[np.uint8]


class Landmarker(Protocol):
    """Finds the largest face's mesh landmarks, 478 x 3 pixels, or None."""

    def __call__(self, image: Image) -> NDArray[np.floating] | None: ...


@dataclass(frozen=True, kw_only=True)
class Rulers:
    """The tools that need files; a missing one leaves its metrics out."""

    lpips: LPIPS | None = None
    identity: IdentityNetwork | None = None
    landmarks: Landmarker | None = None


@dataclass
class ClipScores:
    """Per metric the values over a clip's frames, of the model and of the copy baseline; faces not found are counted."""

    name: str
    frames: int = 0
    model: dict[str, list[float]] = field(default_factory=dict)
    copy: dict[str, list[float]] = field(default_factory=dict)
    depth: list[float] = field(default_factory=list)
    missing_faces: int = 0

    def means(self) -> dict[str, tuple[float, float]]:
        """Metric -> (model, copy), means over the frames."""
        return {name: (float(np.mean(values)), float(np.mean(self.copy[name]))) for name, values in self.model.items() if values}


def measure_clip(path: Path, model: DaGAN, rulers: Rulers, *, every: int = 1, batch: int = 8) -> ClipScores:
    """Scores of one clip: every `every`-th frame after the first, frames resized to the model's size."""
    size = model.config.image_size
    device = next(model.parameters()).device
    scores = ClipScores(path.name)
    with open_video(path) as video:
        frames = video.frames(step=every)
        first = _tensor(next(frames).image, size).to(device)
        source = model.encode_source(first)
        reference = _Face(_image(first[0]), rulers)
        for group in _groups((f.image for f in frames), batch):
            driving = torch.cat([_tensor(image, size) for image in group]).to(device)
            results = model.drive(source, model.keypoints(driving)).image.clamp(0, 1).float()
            # Rounded to 8 bit, as a written result would be.
            results = (results * 255).round() / 255
            copies = first.expand_as(driving)
            _pixels(scores.model, results, driving, rulers)
            _pixels(scores.copy, copies, driving, rulers)
            disparities = model.depth(driving) if model.depth_network is not None else None
            for i, (result, target) in enumerate(zip(results, driving, strict=True)):
                _faces(scores, _Face(_image(result), rulers), _Face(_image(target), rulers), reference)
                if disparities is not None and rulers.landmarks is not None:
                    found = rulers.landmarks(_image(target))
                    if found is not None:
                        scores.depth.append(metrics.depth_rank_correlation(disparities[i, 0].float().cpu().numpy(), found))
            scores.frames += len(group)
    return scores


def measure(clips: Iterable[Path], model: DaGAN, rulers: Rulers, *, every: int = 1) -> Iterator[ClipScores]:
    """`measure_clip` over clips, one by one."""
    for clip in clips:
        yield measure_clip(clip, model, rulers, every=every)


@dataclass(frozen=True)
class Summary:
    """metric -> (model, copy, model / copy), each the mean over clips of the clip's mean; depth: rank correlation with the
    landmarker's z, or None; frames measured; faces not found in results or driving frames."""

    metrics: dict[str, tuple[float, float, float]]
    depth: float | None
    clips: int
    frames: int
    missing_faces: int


def summarise(scores: list[ClipScores]) -> Summary:
    """Clips weigh alike, whatever their length."""
    table: dict[str, tuple[float, float, float]] = {}
    for name in scores[0].model:
        pairs = np.array([s.means()[name] for s in scores if name in s.means()])
        if len(pairs):
            ours, copied = pairs.mean(0)
            table[name] = (float(ours), float(copied), float(ours / copied) if copied else float("nan"))
    depths = [float(np.mean(s.depth)) for s in scores if s.depth]
    depth = float(np.mean(depths)) if depths else None
    return Summary(table, depth, len(scores), sum(s.frames for s in scores), sum(s.missing_faces for s in scores))


class _Face:
    """Landmarks and identity of the face in a picture, where the tools are there and a face is found."""

    def __init__(self, image: Image, rulers: Rulers) -> None:
        self.side = image.shape[0]
        self.landmarks = rulers.landmarks(image) if rulers.landmarks is not None else None
        self.identity: NDArray[np.float32] | None = None
        if self.landmarks is not None and rulers.identity is not None:
            self.identity = rulers.identity.embed(image, self.landmarks)


def _pixels(values: dict[str, list[float]], results: Tensor, driving: Tensor, rulers: Rulers) -> None:
    found = {"L1": metrics.l1(results, driving), "PSNR": metrics.psnr(results, driving), "SSIM": metrics.ssim(results, driving)}
    if rulers.lpips is not None:
        found["LPIPS"] = rulers.lpips(results, driving)
    for name, value in found.items():
        values.setdefault(name, []).extend(value.tolist())


def _faces(scores: ClipScores, result: _Face, target: _Face, source: _Face) -> None:
    if result.landmarks is None or target.landmarks is None or source.landmarks is None:
        scores.missing_faces += 1
        return
    for values, face in ((scores.model, result), (scores.copy, source)):
        assert face.landmarks is not None
        values.setdefault("AKD", []).append(256 / face.side * metrics.landmark_distance(face.landmarks, target.landmarks))
        if face.identity is not None and target.identity is not None:
            values.setdefault("CSIM", []).append(float(face.identity @ target.identity))
            values.setdefault("AED", []).append(float(np.linalg.norm(face.identity - target.identity)))


def _groups(images: Iterable[Image], size: int) -> Iterator[list[Image]]:
    group: list[Image] = []
    for image in images:
        group.append(image)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _tensor(image: Image, size: int) -> Tensor:
    return resize(torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255, (size, size))


def _image(x: Tensor) -> Image:
    return (x * 255).round().byte().permute(1, 2, 0).cpu().numpy()
