"""The tools that measure, and the table of metrics that they give: each with its range, unit and tool."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from dagan.evaluate.expression import expression_metrics
from dagan.evaluate.face_metrics import ACTIVE, CLOSED, FEWEST_FRAMES, MOVES
from dagan.evaluate.faces import Landmarks, Watcher
from dagan.evaluate.frames import FLICKER_PAIRS
from dagan.evaluate.frechet import Extractor, onnx_features, squeezenet_features
from dagan.evaluate.identity import IdentityNetwork
from dagan.evaluate.lpips import LPIPS, LpipsNetwork
from dagan.evaluate.metrics import MS_SSIM_SMALLEST
from dagan.evaluate.records import Metric
from dagan.evaluate.temporal import FLOW_SIDE
from dagan.losses.features import SQUEEZENET
from dagan.media.landmarks import BUNDLE

Protocol = Literal["reconstruction", "cross-identity"]
_LPIPS: dict[str, tuple[str, LpipsNetwork, str]] = {
    "lpips": ("LPIPS", "squeezenet", "SqueezeNet 1.1"),
    "lpips_vgg": ("LPIPS (VGG)", "vgg16", "VGG-16"),
    "lpips_alex": ("LPIPS (Alex)", "alexnet", "AlexNet"),
}


@dataclass(frozen=True, kw_only=True)
class RulerFiles:
    """Files of the tools; None leaves a tool's metrics out. lpips: SqueezeNet 1.1 weights; lpips_vgg, lpips_alex: VGG-16's and
    AlexNet's; identity: ONNX face recognition network; fid: ONNX feature network."""

    lpips: Path = SQUEEZENET
    lpips_vgg: Path | None = None
    lpips_alex: Path | None = None
    identity: Path | None = None
    fid: Path | None = None

    def digests(self) -> dict[str, str]:
        """Tool -> SHA-256 of its file."""
        return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in self.present().items()}

    def present(self) -> dict[str, Path]:
        """Tool -> its file, for the tools that have one; the bundled face landmarker is among them."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: file for name, file in named.items() if file is not None} | {"landmarker": BUNDLE}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to measure. every: each n-th driving frame; size: side of the pictures measured; relative, adapt_scale, reference: of the
    motion when identities differ, as `dagan animate` has them; legacy_range: PSNR and SSIM with data range 2 too; fid: Fréchet distance."""

    protocol: Protocol
    every: int = 5
    size: int = 256
    relative: bool = True
    adapt_scale: bool = True
    reference: Literal["auto", "first"] = "auto"
    legacy_range: bool = False
    fid: bool = False


class Rulers:
    """The opened tools. Raises InputError when a file is missing or does not fit."""

    def __init__(self, files: RulerFiles, settings: Settings) -> None:
        rebuilt = settings.protocol == "reconstruction"
        named = {"lpips": files.lpips, "lpips_vgg": files.lpips_vgg, "lpips_alex": files.lpips_alex}
        self.lpips = {key: LPIPS(file, _LPIPS[key][1]) for key, file in named.items() if file is not None and rebuilt}
        identity = IdentityNetwork(files.identity) if files.identity else None
        self.watcher = Watcher(Landmarks(), identity)
        self.features: Extractor | None = None
        if settings.fid and files.fid is not None:
            self.features = onnx_features(files.fid)
        elif settings.fid:
            self.features = squeezenet_features(LPIPS(files.lpips).network)


def catalogue(files: RulerFiles, settings: Settings) -> tuple[Metric, ...]:
    """The metrics of a run, in the order to show."""
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
    if files.identity is not None:
        to = "driving frame" if rebuilt else "source"
        tool = f"{files.identity.name}, ONNX, five-point alignment, result against {to}"
        found += [
            Metric(key="csim", title="CSIM", better="higher", signed=True, range="-1 to 1", tool=f"cosine of identity embeddings, {tool}"),
            Metric(key="aed", title="AED", better="lower", range="0 to 2", tool=f"Euclidean distance of unit identity embeddings, {tool}"),
        ]
    shapes = f"51 blendshapes of {mesh}, result against driving frame"
    found += [
        Metric(key="prmse", title="PRMSE", better="lower", range="0 to 150", unit="degrees",
               tool=f"{mesh}, least-squares rotation (Procrustes) between 14 rigid mesh points with z of result and driving frame; "
                    "root mean square of its yaw, pitch and roll"),
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
