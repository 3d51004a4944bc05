"""One method's values on one pair, gathered frame by frame.

Legend: S side of the pictures measured. Pictures are uint8 S x S x 3.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dagan.evaluate import face_metrics, metrics, temporal
from dagan.evaluate.expression import KEPT
from dagan.evaluate.faces import Seen
from dagan.evaluate.frames import Image
from dagan.evaluate.records import PairScores, Value
from dagan.evaluate.rulers import Rulers, Settings
from dagan.inference.reference import turn_between
from dagan.losses.crops import FaceCrops
from dagan.media.expression import expressions
from dagan.media.mesh_points import MESH_POINTS, SIXTY_EIGHT

MOST_PSNR = 100.0  # equal pictures have an infinite one, of which no mean can be taken
LEGACY_GAIN = 20 * float(np.log10(2))


class Tally:
    """Values so far; `source`: the face in the source picture."""

    def __init__(self, rulers: Rulers, settings: Settings, source: Seen | None) -> None:
        self.rulers, self.settings, self.source = rulers, settings, source
        self.rebuilt = settings.protocol == "reconstruction"
        self.values: dict[str, list[Value]] = {}
        self.frames: list[int] = []
        self.rotation: list[Value] = []
        self.missing = {"result": 0, "driving": 0}
        self.features: list[np.ndarray] = []
        self.truths: list[np.ndarray] = []
        self.shown: dict[int, Image] = {}
        self._strengths: list[tuple[np.ndarray, np.ndarray]] = []
        self._expressions: list[tuple[float, ...]] = []
        self._cutter = FaceCrops(range(MESH_POINTS))
        self._background = temporal.Background(settings.size)
        self._flicker: list[float] = []

    def add(self, numbers: list[int], results: list[Image], driving: list[Image], faces: list[Seen | None]) -> None:
        """Measured frames, with the faces in the driving frames."""
        if not numbers:
            return
        self.frames += numbers
        a, b = tensor(results), tensor(driving)
        if self.rebuilt:
            self._pixels(a, b)
            self._regions(a, b, faces)
        if self.rulers.features is not None:
            self.features.append(self.rulers.features(a))
            self.truths.append(self.rulers.features(b))
        for result, target in zip(results, faces, strict=True):
            self._faces(result, self.rulers.watcher.see(result), target)

    def follow(self, before: Image, after: Image, driving: temporal.Step) -> None:
        """Results of consecutive frames, with what happened between the driving ones, for flicker."""
        motion = driving.motion if self.rebuilt else None
        self._flicker.append(temporal.step(before, after, motion).error - driving.error)

    def finish(self, *, pair: str, source: str, driving: str, method: str, source_frame: int, problem: str | None) -> PairScores:
        """All values, those per clip included."""
        if not self.frames:
            return PairScores(pair=pair, source=source, driving=driving, method=method, source_frame=source_frame, problem=problem)
        self._put("flicker", float(np.mean(self._flicker)) if self._flicker else None)
        self._put("background", self._background.deviation())
        ours, theirs = (np.array([pair[i] for pair in self._strengths]) for i in (0, 1))
        self._put("expression_correlation", face_metrics.expression_correlation(ours, theirs))
        return PairScores(
            pair=pair, source=source, driving=driving, method=method, source_frame=source_frame, frames=tuple(self.frames),
            values={key: tuple(found) for key, found in self.values.items()},
            missing=self.missing, rotation=tuple(self.rotation), expressions=tuple(self._expressions), problem=problem,
        )  # fmt: skip

    def _put(self, key: str, value: Value) -> None:
        self.values.setdefault(key, []).append(value)

    def _pixels(self, a: Tensor, b: Tensor) -> None:
        found = {"l1": metrics.l1(a, b), "psnr": metrics.psnr(a, b).clamp(max=MOST_PSNR), "ssim": metrics.ssim(a, b)}
        if self.settings.legacy_range:
            found["psnr_range2"] = metrics.psnr(a, b, 2.0).clamp(max=MOST_PSNR + LEGACY_GAIN)
            found["ssim_range2"] = metrics.ssim(a, b, 2.0)
        if min(a.shape[2:]) >= metrics.MS_SSIM_SMALLEST:
            found["ms_ssim"] = metrics.ms_ssim(a, b)
        found |= {key: ruler(a, b) for key, ruler in self.rulers.lpips.items()}
        for key, values in found.items():
            self.values.setdefault(key, []).extend(values.tolist())

    def _regions(self, a: Tensor, b: Tensor, faces: list[Seen | None]) -> None:
        """LPIPS of mouths and eyes, cut out where the driving frame has them and enlarged."""
        if "lpips" not in self.rulers.lpips or self.rulers.watcher is None:
            return
        unknown = np.full((MESH_POINTS, 2), np.nan)
        places = np.stack([unknown if face is None else face.landmarks[:, :2] for face in faces])
        # Landmarks count from the outer edge of the first pixel, coordinates from its centre.
        cuts = self._cutter(torch.cat([a, b], dim=1), torch.from_numpy(2 * (places - 0.5) / (self.settings.size - 1) - 1).float())
        for key, cut in zip(("lpips_mouth", "lpips_eyes"), cuts, strict=True):
            distances = self.rulers.lpips["lpips"](*cut.split(3, dim=1)).tolist()
            self.values.setdefault(key, []).extend(None if face is None else d for d, face in zip(distances, faces, strict=True))

    def _faces(self, picture: Image, result: Seen | None, target: Seen | None) -> None:
        self.missing["result"] += result is None
        self.missing["driving"] += target is None
        self._background.add(picture, [seen.landmarks for seen in (result, target) if seen is not None])
        self.rotation.append(turn_between(self.source.pose.rigid, target.pose.rigid) if self.source and target else None)
        self._put("missing", None if target is None else float(result is None))
        same = target if self.rebuilt else self.source
        if self.rulers.watcher.identity is not None:
            ours, theirs = (seen.identity if seen is not None else None for seen in (result, same))
            for key, distance in (("csim", np.dot), ("aed", _distance)):
                self._put(key, float(distance(ours, theirs)) if ours is not None and theirs is not None else None)
        scale = 256 / self.settings.size
        if result is None or target is None:
            keys = ("prmse", "expression_agreement", "gaze", *(("akd", "akd68") if self.rebuilt else ()))
            for key in keys:
                self._put(key, None)
            return
        if self.rebuilt:
            self._put("akd", scale * metrics.landmark_distance(result.landmarks, target.landmarks))
            self._put("akd68", scale * metrics.landmark_distance(*(seen.landmarks[list(SIXTY_EIGHT)] for seen in (result, target))))
        self._put("prmse", face_metrics.head_pose_error(result.pose.rigid, target.pose.rigid))
        self._put("expression_agreement", face_metrics.expression_agreement(result.pose.expression, target.pose.expression))
        open_eyes = max(result.pose.blink, target.pose.blink) <= face_metrics.CLOSED
        self._put("gaze", face_metrics.gaze_error(result.landmarks, target.landmarks) if open_eyes else None)
        self._strengths.append((result.pose.expression, target.pose.expression))
        if self.source is not None:
            faces = (self.source, target, result)
            rest, driven, drawn = expressions(lambda point: np.stack([face.landmarks[point, :2] for face in faces]))[:, :KEPT]
            self._expressions.append((*(driven - rest).tolist(), *(drawn - rest).tolist()))


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b))


def tensor(pictures: list[Image]) -> Tensor:
    """B x 3 x S x S in [0, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
