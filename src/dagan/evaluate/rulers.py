"""The tools that measure (the rulers), the metrics that they give, and the values of one method on one pair, gathered frame by frame.

Each metric says its range, its unit and its tool.

Legend: S side of the pictures measured. Pictures are uint8 S x S x 3.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dagan.evaluate import face_metrics, metrics
from dagan.evaluate.distances import LPIPS, Extractor, LpipsNetwork, onnx_features, squeezenet_features
from dagan.evaluate.face_metrics import (
    ACTION_UNITS,
    ACTIVE,
    CLOSED,
    FEWEST_FRAMES,
    KEPT,
    MOVES,
    Landmarks,
    Seen,
    Watcher,
    expression_metrics,
)
from dagan.evaluate.metrics import FLOW_SIDE, MS_SSIM_SMALLEST
from dagan.evaluate.pairs import FLICKER_PAIRS, Image
from dagan.evaluate.records import Metric, PairScores, Value
from dagan.losses.gan import SQUEEZENET, FaceCrops
from dagan.media.face_networks import PRESENT, ActionUnitNetwork, IdentityNetwork, LandmarkNetwork
from dagan.media.landmarks import BUNDLE, MESH_POINTS, SIXTY_EIGHT, expressions, turn_between

Protocol = Literal["reconstruction", "cross-identity"]
_LPIPS: dict[str, tuple[str, LpipsNetwork, str]] = {
    "lpips": ("LPIPS", "squeezenet", "SqueezeNet 1.1"),
    "lpips_vgg": ("LPIPS (VGG)", "vgg16", "VGG-16"),
    "lpips_alex": ("LPIPS (Alex)", "alexnet", "AlexNet"),
}


@dataclass(frozen=True, kw_only=True)
class RulerFiles:
    """The files of the tools. None leaves out the metrics of a tool."""

    lpips: Path = SQUEEZENET
    """Weights of SqueezeNet 1.1."""
    lpips_vgg: Path | None = None
    """Weights of VGG-16."""
    lpips_alex: Path | None = None
    """Weights of AlexNet."""
    identity: Path | None = None
    """A face recognition network in ONNX."""
    landmarks68: Path | None = None
    """A network in ONNX that finds the 68 usual points of face alignment."""
    action_units: Path | None = None
    """A network in ONNX that finds action units; None takes them from the face landmarker's blendshapes."""
    fid: Path | None = None
    """A feature network in ONNX."""

    def digests(self) -> dict[str, str]:
        """Returns the SHA-256 of each tool's file by the tool's name."""
        return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in self.present().items()}

    def present(self) -> dict[str, Path]:
        """Returns the file of each tool that has one, by the tool's name. The bundled face landmarker is among them."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: file for name, file in named.items() if file is not None} | {"landmarker": BUNDLE}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to measure. `relative`, `adapt_scale` and `reference` are as in `dagan animate` and serve pairs of different identities."""

    protocol: Protocol
    """What is measured."""
    every: int = 5
    """Each n-th driving frame is measured."""
    size: int = 256
    """The side of the pictures that are measured."""
    relative: bool = True
    """Whether movements count from the reference frame."""
    adapt_scale: bool = True
    """Whether movements are scaled to the size of the source's face."""
    reference: Literal["auto", "first"] = "auto"
    """Whether the reference frame is looked for, or is the first one."""
    legacy_range: bool = False
    """Whether PSNR and SSIM are also given with data range 2."""
    fid: bool = False
    """Whether the Fréchet distance is measured."""


class Rulers:
    """The opened tools. Raises InputError when a file is missing or does not fit."""

    def __init__(self, files: RulerFiles, settings: Settings) -> None:
        rebuilt = settings.protocol == "reconstruction"
        named = {"lpips": files.lpips, "lpips_vgg": files.lpips_vgg, "lpips_alex": files.lpips_alex}
        self.lpips = {key: LPIPS(file, _LPIPS[key][1]) for key, file in named.items() if file is not None and rebuilt}
        identity = IdentityNetwork(files.identity) if files.identity else None
        landmarks68 = LandmarkNetwork(files.landmarks68) if files.landmarks68 is not None and rebuilt else None
        units = ActionUnitNetwork(files.action_units) if files.action_units is not None else None
        self.watcher = Watcher(Landmarks(), identity, landmarks68, units)
        self.features: Extractor | None = None
        if settings.fid and files.fid is not None:
            self.features = onnx_features(files.fid)
        elif settings.fid:
            self.features = squeezenet_features(LPIPS(files.lpips).network)


def catalogue(files: RulerFiles, settings: Settings) -> tuple[Metric, ...]:
    """Returns the metrics of a run, in the order to show."""
    metrics = _pixel_metrics(files, settings) if settings.protocol == "reconstruction" else []
    metrics += _face_metrics(files, settings)
    metrics += _temporal_metrics(settings)
    if settings.fid:
        metrics.append(_fid(files))
    return tuple(metrics)


def _pixel_metrics(files: RulerFiles, settings: Settings) -> list[Metric]:
    window = "11 x 11 Gaussian window, sigma 1.5"
    found = [
        Metric(key="l1", title="L1", better="lower", range="0 to 1", tool="mean absolute difference of RGB in [0, 1]"),
        Metric(key="psnr", title="PSNR", better="higher", range="0 to 100; 100 stands for all above", unit="dB",
               tool="torchmetrics, data range 1, per frame"),
        Metric(key="ssim", title="SSIM", better="higher", signed=True, range="-1 to 1", tool=f"scikit-image, data range 1, RGB, {window}"),
    ]  # fmt: skip
    if settings.legacy_range:
        warning = "data range 2 on pictures in [0, 1]: flatters; only beside old figures"
        found += [
            Metric(key="psnr_range2", title="PSNR (range 2)", better="higher", range="6 to 106", unit="dB",
                   tool=f"torchmetrics, {warning}"),
            Metric(key="ssim_range2", title="SSIM (range 2)", better="higher", signed=True, range="-1 to 1",
                   tool=f"scikit-image, {warning}"),
        ]  # fmt: skip
    if settings.size >= MS_SSIM_SMALLEST:
        tool = f"torchmetrics, data range 1, five scales, {window}"
        found.append(Metric(key="ms_ssim", title="MS-SSIM", better="higher", range="0 to 1", tool=tool))
    for key, (title, _, network) in _LPIPS.items():
        if getattr(files, key) is not None:
            tool = f"LPIPS 0.1 on {network} features, torchmetrics' linear weights, pictures scaled to [-1, 1]"
            found.append(Metric(key=key, title=title, better="lower", range="0 to about 1", tool=tool))
    if files.lpips is not None:
        for part in ("mouth", "eyes"):
            tool = f"LPIPS (SqueezeNet 1.1) of the {part}, cut out round the driving frame's landmarks and enlarged"
            found.append(Metric(key=f"lpips_{part}", title=f"LPIPS, {part}", better="lower", range="0 to about 1", tool=tool))
    return found


def _face_metrics(files: RulerFiles, settings: Settings) -> list[Metric]:
    mesh = "MediaPipe Face Landmarker"
    rebuilt = settings.protocol == "reconstruction"
    found = []
    if rebuilt:
        pixels = "px at 256"
        found += [
            Metric(key="akd", title="AKD", better="lower", range="0 and above", unit=pixels,
                   tool=f"{mesh}, mean distance of 478 mesh points"),
            Metric(key="akd68", title="AKD (68)", better="lower", range="0 and above", unit=pixels,
                   tool=f"{mesh}, the 68 mesh points nearest to the usual 68 (not the detector of published figures)"),
        ]  # fmt: skip
        if files.landmarks68 is not None:
            found.append(
                Metric(key="akd68_network", title="AKD (68, network)", better="lower", range="0 and above", unit=pixels,
                       tool=f"{files.landmarks68.name}, ONNX, 68 points read from heatmaps, mean distance; faces found by {mesh}")
            )  # fmt: skip
    if files.identity is not None:
        to = "driving frame" if rebuilt else "source"
        tool = f"{files.identity.name}, ONNX, five-point alignment, result against {to}"
        found += [
            Metric(key="csim", title="CSIM", better="higher", signed=True, range="-1 to 1", tool=f"cosine of identity embeddings, {tool}"),
            Metric(key="aed", title="AED", better="lower", range="0 to 2", tool=f"Euclidean distance of unit identity embeddings, {tool}"),
        ]
    numbers = ", ".join(map(str, ACTION_UNITS))
    units = f"{len(ACTION_UNITS)} action units (AU {numbers}) from blendshapes of {mesh}, strength {ACTIVE} and above"
    if files.action_units is not None:
        units = f"action units of {files.action_units.name}, ONNX, strength {PRESENT} and above"
    shapes = f"51 blendshapes of {mesh}, result against driving frame"
    found += [
        Metric(key="prmse", title="PRMSE", better="lower", range="0 to 150", unit="degrees",
               tool=f"{mesh}, least-squares rotation (Procrustes) between 14 rigid mesh points with z of result and driving frame; "
                    "root mean square of its yaw, pitch and roll"),
        Metric(key="aucon", title="AUCON", better="higher", range="0 to 1",
               tool=f"share of action units that are present in both result and driving frame or in neither: {units}"),
        Metric(key="expression_agreement", title="Expression agreement", better="higher", range="0 to 1",
               tool=f"share equally on or off (strength {ACTIVE} and above is on) of {shapes}; in the manner of AUCON"),
        Metric(key="expression_correlation", title="Expression correlation", better="higher", signed=True, range="-1 to 1", per="clip",
               tool=f"correlation over time, mean over those with standard deviation of {MOVES} or more in the driving clip, of {shapes}; "
                    f"at least {FEWEST_FRAMES} frames"),
        Metric(key="gaze", title="Gaze error", better="lower", range="0 to 180", unit="degrees",
               tool=f"iris between eye corners of {mesh}, eyeball radius 0.4 of the eye's width, result against driving frame; "
                    f"none where eyes are closed (blink above {CLOSED})"),
        Metric(key="missing", title="Faces missing", better="lower", range="0 to 1",
               tool=f"share of frames, of those with a face in the driving frame, in which {mesh} finds none in the result"),
    ]  # fmt: skip
    return found + expression_metrics(mesh)


def _temporal_metrics(settings: Settings) -> list[Metric]:
    rebuilt = settings.protocol == "reconstruction"
    whose = "of the driving frames" if rebuilt else "of each video's own frames"
    return [
        Metric(key="flicker", title="Flicker", better="lower", signed=True,
               range="-255 to 255, 0 is as steady as the driving video", unit="grey levels",
               per="clip", tool=f"warp error of consecutive results less that of the driving frames, at {FLOW_SIDE} x {FLOW_SIDE}; optical "
               f"flow {whose} (scikit-image, iterative Lucas-Kanade, radius 7); at most {FLICKER_PAIRS} evenly spaced pairs of frames"),
        Metric(key="background", title="Background deviation", better="lower", range="0 to 127.5", unit="grey levels", per="clip",
               tool="standard deviation over measured frames of pixels outside the heads of result and driving frame (face boxes "
                    "enlarged 1.8 times, and all below chins); 0 for the copy baseline by nature"),
    ]  # fmt: skip


def _fid(files: RulerFiles) -> Metric:
    network = f"features of {files.fid.name}" if files.fid is not None else "SqueezeNet features"
    return Metric(
        key="fid", title=f"FID ({network}; not comparable to Inception FID)", better="lower", range="0 and above", per="set",
        tool=f"Fréchet distance between measured results and their driving frames, {network}, averaged over the picture",
    )  # fmt: skip


MOST_PSNR = 100.0  # Equal pictures have an infinite PSNR, with which no mean can be taken. Higher values are set to this one.
LEGACY_GAIN = 20 * float(np.log10(2))  # PSNR with data range 2 is so many dB higher.


class Tally:
    """Gathers the values of one method on one pair. `source` is the face in the source picture."""

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
        self._background = metrics.Background(settings.size)
        self._flicker: list[float] = []

    def add(self, numbers: list[int], results: list[Image], driving: list[Image], faces: list[Seen | None]) -> None:
        """Adds measured frames. `faces` are those in the driving frames."""
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

    def follow(self, before: Image, after: Image, driving: metrics.Step) -> None:
        """Adds the results of two consecutive frames, and what happened between the driving frames, for flicker."""
        motion = driving.motion if self.rebuilt else None
        self._flicker.append(metrics.step(before, after, motion).error - driving.error)

    def finish(self, *, pair: str, source: str, driving: str, method: str, source_frame: int, problem: str | None) -> PairScores:
        """Returns all values, including those per clip."""
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
        """Measures LPIPS of mouths and eyes, which are cut out where the driving frame has them and enlarged."""
        if "lpips" not in self.rulers.lpips or self.rulers.watcher is None:
            return
        unknown = np.full((MESH_POINTS, 2), np.nan)
        places = np.stack([unknown if face is None else face.landmarks[:, :2] for face in faces])
        # Landmarks count from the outer edge of the first pixel, and coordinates count from its centre.
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
            keys = ("prmse", "aucon", "expression_agreement", "gaze", *(("akd", "akd68") if self.rebuilt else ()))
            for key in (*keys, *(("akd68_network",) if self.rulers.watcher.landmarks68 is not None else ())):
                self._put(key, None)
            return
        if self.rebuilt:
            self._put("akd", scale * metrics.landmark_distance(result.landmarks, target.landmarks))
            self._put("akd68", scale * metrics.landmark_distance(*(seen.landmarks[list(SIXTY_EIGHT)] for seen in (result, target))))
        if result.points68 is not None and target.points68 is not None:
            self._put("akd68_network", scale * metrics.landmark_distance(result.points68, target.points68))
        self._put("aucon", float(np.mean(result.units == target.units)))
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
    """Turns pictures into B x 3 x S x S in [0, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
