"""The benchmark: parts, latency and whole videos of a model in every runtime."""

from __future__ import annotations

import copy
import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from dagan.animate.animator import Animator
from dagan.bench.timing import RATE, BenchReport, Part, RuntimeFigures, matrix_peak, repeated, swaying, timed, write_clip
from dagan.checks import require
from dagan.config import PRESETS
from dagan.device import PRECISIONS, choose_device, choose_precision
from dagan.engine.base import Engine
from dagan.engine.sessions import READERS, TORCH, available, is_exported, read_note
from dagan.errors import InputError
from dagan.models.dagan import DaGAN
from dagan.models.generator import CrossModalAttention
from dagan.processes import peak_device_memory_mb, peak_memory_mb
from dagan.progress import Warn, to_stderr
from dagan.weights import fold, load
from dagan.weights.files import bundled, weights_digest


class Opener(Protocol):
    """Opens an engine as `engine.open.open_engine` does."""

    def __call__(
        self, model: DaGAN | Path, runtime: str, batch_size: int | None = None, device: str = "auto", precision: str = "auto",
        warn: Warn = to_stderr,
    ) -> Engine: ...  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What to measure."""

    model: str = "lite-256"
    """Anything that `dagan.load` takes, a folder that `dagan export` wrote, or a preset without weights, freshly initialised."""
    runtimes: tuple[str, ...] | None = None
    """The runtimes to measure. None measures all that can compute on this device in this precision."""
    device: str = "auto"
    precision: str = "auto"
    batch_size: int | None = None
    frames: int = 100
    """The number of the video's frames. 0 leaves videos out, and PyAV is not needed then."""
    seconds: float = 2.0
    """Each part is measured for so many seconds."""
    crop: bool = False
    """Whether the face is found in the video."""


@dataclass(frozen=True)
class _Scene:
    """What is animated."""

    pictures: list[np.ndarray] = field(repr=False)
    """Pictures for a batch and more."""
    clip: Path | None
    """A video of `frames` frames; None without videos."""
    folder: Path
    """A folder for results."""


MOST = 1_000_000  # Nobody waits for more frames or seconds.


def measure(options: BenchOptions, opener: Opener, tell: Warn = lambda _: None) -> BenchReport:
    """Measures everything that `opener` opens, and tells what is being done. Raises InputError for options that cannot work."""
    for name, value in (("--frames", options.frames), ("--seconds", options.seconds)):
        require(0 <= value <= MOST, name, value, f"must be from 0 to {MOST}")
    device = choose_device(options.device)
    model, trained = open_model(options.model, options.device, options.precision)
    folder = Path(options.model) if is_exported(Path(options.model)) else None
    engines, left_out = _engines(folder or model, device, options, opener, tell)
    with tempfile.TemporaryDirectory() as temporary:
        scene = _make_scene(options, model.config.image_size, Path(temporary))
        precision = {v: k for k, v in PRECISIONS.items()}[model.compute_dtype]
        tell("measuring the fastest matrix product")
        products = dict.fromkeys(("float32", "bfloat16" if precision == "int8" else precision))
        peaks = {p: matrix_peak(device, PRECISIONS[p]) for p in products}
        gflop = count_gflop(model, scene.pictures[0])
        exact = opener(_exact(model), TORCH) if folder is None or trained else None
        figures = []
        for name, engine in engines.items():
            tell(f"measuring {name}")
            figures.append(_runtime(name, engine, scene, gflop, peaks, exact, options))
    return BenchReport(
        model=options.model,
        trained=trained or folder is not None,
        machine=_machine(device),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        peak_gflops=peaks,
        runtimes=figures,
        left_out=left_out,
        peak_memory_mb=peak_memory_mb(),
        device_memory_mb=peak_device_memory_mb(str(device)),
    )


def open_model(name: str, device: str, precision: str) -> tuple[DaGAN, bool]:
    """Opens a model and says whether it is trained. A preset without weights is freshly initialised, the same each time.

    For an exported folder, it is the bundled model that the folder was made of, if it was one, or else a fresh one of its configuration.
    """
    config = PRESETS.get(name)
    if is_exported(Path(name)):
        note = read_note(Path(name))
        if note.name in bundled() and weights_digest(model := load(note.name, device, "float32")) == note.weights:
            return model, True
        config = note.config
    elif config is None or name in bundled():
        return load(name, device, precision), True
    target = choose_device(device)
    torch.manual_seed(0)
    model = DaGAN(config).eval()
    for attention in attentions(model):
        torch.nn.init.constant_(attention.gamma, 0.5)  # At 0, where it starts, no difference would be seen.
    model.compute_dtype = choose_precision(precision, target)
    return model.to(target), False


def attentions(model: DaGAN) -> list[CrossModalAttention]:
    """Returns the model's attentions, of which there may be none or one for each scale."""
    return [module for module in model.modules() if isinstance(module, CrossModalAttention)]


def difference(engine: Engine, exact: Engine, pictures: list[np.ndarray]) -> tuple[float, float]:
    """Returns the mean and the largest absolute difference, in 255ths, between what two engines make of the same driving pictures.

    Each finds its own keypoints. The first picture is the source, and the others move it relative to itself.
    """
    results = []
    for each in (engine, exact):
        animator = Animator(each)
        animator.set_source(pictures[0])
        animator.set_reference(pictures[0])
        size = each.batch_size
        results.append(np.concatenate([animator.animate_batch(pictures[i : i + size]) for i in range(0, len(pictures), size)]))
    apart = np.abs(results[0].astype(np.int16) - results[1])
    return float(apart.mean()), float(apart.max())


def count_gflop(model: DaGAN, picture: np.ndarray) -> dict[str, float]:
    """Returns the GFLOP of each part for one picture, as PyTorch counts them. A multiplication and an addition are two operations."""
    model = fold(model)  # The counter cannot see through spectral norms, which become plain weights here.
    device = next(model.parameters()).device
    image = torch.from_numpy(picture.copy()).to(device).permute(2, 0, 1)[None].float() / 255
    source = model.encode_source(image)
    calls: dict[str, Callable[[], object]] = {
        "encode": partial(model.encode_source, image),
        "keypoints": partial(model.keypoints, image),
        "draw": partial(model.drive, source, source.keypoints),
    }
    counted = {}
    for name, call in calls.items():
        with FlopCounterMode(display=False) as counter:
            call()
        counted[name] = counter.get_total_flops() / 1e9
    return counted


def _make_scene(options: BenchOptions, size: int, folder: Path) -> _Scene:
    pictures = list(islice(swaying(size), 64))
    clip = write_clip(folder / "clip.mp4", options.frames) if options.frames else None
    return _Scene(pictures, clip, folder)


def _exact(model: DaGAN) -> DaGAN:
    """Returns the model with the same weights, computing in float32."""
    exact = copy.copy(model)
    exact.compute_dtype = torch.float32
    return exact


def _engines(
    model: DaGAN | Path, device: torch.device, options: BenchOptions, opener: Opener, tell: Warn
) -> tuple[dict[str, Engine], dict[str, str]]:
    """Opens an engine in each runtime, and says why others have none. Raises InputError where such a one was asked for."""
    names = options.runtimes or (available() if device.type == "cpu" else [TORCH])
    if isinstance(model, Path) and not options.runtimes:
        names = [name for name in READERS[read_note(model).kind] if name in available()]
    engines: dict[str, Engine] = {}
    left_out: dict[str, str] = {}
    for name in names:
        try:
            engines[name] = opener(model, name, options.batch_size, str(device), options.precision, warn=tell)
        except InputError as problem:
            if options.runtimes or name == TORCH:
                raise
            left_out[name] = str(problem)
    if not engines:
        raise InputError(f"no runtime here can compute {options.model}: {' '.join(left_out.values()) or 'pip install dagan[export]'}")
    return engines, left_out


def _runtime(
    name: str,
    engine: Engine,
    scene: _Scene,
    gflop: dict[str, float],
    peaks: dict[str, float],
    exact: Engine | None,
    options: BenchOptions,
) -> RuntimeFigures:
    pictures = [scene.pictures[i % len(scene.pictures)] for i in range(engine.batch_size)]
    source, found = engine.encode(pictures[0]), engine.keypoints(pictures)
    one = found[:1]
    full: dict[str, Callable[[], object]] = {
        "keypoints": partial(engine.keypoints, pictures),
        "draw": partial(engine.render, source, found),
    }
    single: dict[str, Callable[[], object]] = {
        "encode": partial(engine.encode, pictures[0]),
        "keypoints": partial(engine.keypoints, pictures[:1]),
        "draw": partial(engine.render, source, one),
    }
    parts = []
    for part, call in single.items():
        alone = repeated(call, options.seconds)
        batch_ms = repeated(full[part], options.seconds).p50 / len(pictures) if part in full else alone.p50
        peak = peaks.get(engine.precision)
        parts.append(Part(part, alone, batch_ms, gflop[part], gflop[part] / batch_ms * 1000 / peak if peak else None))
    latency = repeated(lambda: engine.render(source, engine.keypoints(pictures[:1])), options.seconds)
    mean, largest = difference(engine, exact, scene.pictures[:50:10]) if exact is not None else (None, None)
    video_fps = None
    if scene.clip is not None:
        video_fps = options.frames / timed(
            partial(animate_clip, engine, scene.pictures[0], scene.clip, scene.folder / "fast.mp4", options.crop)
        )
    return RuntimeFigures(name, engine.device, engine.precision, engine.batch_size, parts, latency, mean, largest, video_fps)


def animate_clip(engine: Engine, source: np.ndarray, clip: Path, output: Path, crop: bool) -> None:
    """Reads, cuts out, computes and writes a whole video, including the source's encoding. `source` is S x S x 3 uint8."""
    from dagan.media.video import VideoWriter

    animator = Animator(engine)
    animator.set_source(source)
    with VideoWriter(output, engine.size, engine.size, rate=RATE, overwrite=True) as writer:
        for i, result in enumerate(animator.video(clip, crop=crop)):
            writer.write(result, Fraction(i, RATE))


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.system()} {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
