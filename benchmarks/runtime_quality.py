"""Quality of a model in every runtime and precision: reconstruction of the same clips, and the difference to float32 PyTorch.

Run: python benchmarks/runtime_quality.py CLIPS [--hold-out 0.1] [--every 10] [--clips 8] [--lpips FILE] [--landmarker FILE]
     [--with FOLDER ...]   (FOLDER: an exported folder to measure too, for example an int8 one)
"""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from runtimes import open_all
from torch import Tensor

from dagan.data.clips import clips_for
from dagan.evaluate.faces import open_landmarks
from dagan.evaluate.lpips import LPIPS
from dagan.evaluate.reconstruction import Rulers, measure_clip, summarise
from dagan.inference.runner import Runner
from dagan.models.keypoints import Keypoints


class Behind:
    """An engine that looks like a model to `measure_clip`; keeps the pictures it made."""

    depth_network = None  # depth is not what is compared here

    def __init__(self, engine: Runner) -> None:
        self.engine = engine
        self.config = SimpleNamespace(image_size=engine.size)
        self.made: list[np.ndarray] = []

    def parameters(self) -> Any:
        """One tensor, for the device."""
        return iter([torch.zeros(1)])

    def encode_source(self, image: Tensor) -> Any:
        """See DaGAN."""
        return self.engine.encode(_bytes(image)[0])

    def keypoints(self, images: Tensor) -> Keypoints:
        """See DaGAN."""
        return self.engine.keypoints(_bytes(images))

    def drive(self, source: Any, keypoints: Keypoints) -> Any:
        """See DaGAN."""
        self.made.append(self.engine.render(source, keypoints))
        return SimpleNamespace(image=torch.from_numpy(self.made[-1]).permute(0, 3, 1, 2).float() / 255)


def _bytes(images: Tensor) -> np.ndarray:
    return (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="lite-256")
    parser.add_argument("--hold-out", type=float, default=0.0)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--lpips", type=Path)
    parser.add_argument("--landmarker", type=Path)
    parser.add_argument("--with", dest="folders", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    clips = clips_for(options.folder, options.hold_out)
    clips = [clips[i] for i in np.linspace(0, len(clips) - 1, min(len(clips), options.clips)).round().astype(int)]
    rulers = Rulers(lpips=LPIPS(options.lpips) if options.lpips else None, landmarks=open_landmarks(options.landmarker))
    exact: list[np.ndarray] = []
    table = Table("runtime", "L1", "LPIPS", "landmarks", "mean /255", "worst frame's mean", title=f"{len(clips)} clips, ratios to the copy")
    for label, engine in open_all(options.model, options.folders, 4):
        model: Any = Behind(engine)
        summary = summarise([measure_clip(clip.path, model, rulers, every=options.every, batch=4) for clip in clips])
        exact = exact or model.made
        gaps = [np.abs(a.astype(int) - b).mean((1, 2, 3)) for a, b in zip(model.made, exact, strict=True)]
        ratios = [f"{summary.metrics[name][0]:.4f} ({summary.metrics[name][2]:.4f})" if name in summary.metrics else ""
                  for name in ("L1", "LPIPS", "AKD")]  # fmt: skip
        table.add_row(label, *ratios, f"{np.concatenate(gaps).mean():.3f}", f"{np.concatenate(gaps).max():.3f}")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
