"""What a training step of each recipe costs on this processor: seconds of one core for a sample, and the most memory of the process.

Each recipe runs as it is written, but for batches of 2, a few steps, one process on the CPU, and no weights to start from. Processor time
is that of a longer run less that of a shorter one, over the samples between them, so that start and decoding do not count. Where a
recipe asks for VGG-19, random weights stand in for the file, which cost the same.

Run: OMP_NUM_THREADS=1 python benchmarks/training_cost.py CLIPS [RECIPE ...]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import yaml
from rich.console import Console
from rich.table import Table

from dagan.config import preset
from dagan.losses.gan import _vgg19
from dagan.models.depth import DepthNetwork
from dagan.train.depth import save_depth

RECIPES = ("depth-lite", "gan-lite-128", "gan-lite-256", "depth-paper", "gan-paper-256", "gan-paper-spade-256")
FOLDER = Path(__file__).parents[1] / "recipes"
BATCH, FEW, MORE = 2, 1, 3
CHILD = """
import sys, time
from dagan.cli import app
from dagan.processes import peak_memory_mb
app(sys.argv[1:], standalone_mode=False)
print("cost", time.process_time(), peak_memory_mb())
"""


def cost(recipe: Path, stage: str, settings: list[str]) -> tuple[float, float]:
    """Processor seconds and peak memory in MiB of one run in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, "train", stage, str(recipe), *settings, "--fresh", "--device", "cpu"], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{recipe.stem}: {done.stderr[-2000:]}")
    _, seconds, memory = done.stdout.strip().splitlines()[-1].split()
    return float(seconds), float(memory)


def main(clips: str, names: list[str]) -> None:
    """Prints the table."""
    table = Table("recipe", "side", "samples a step", "seconds of a core a sample", "samples an hour", f"memory, batches of {BATCH}, GB")
    with tempfile.TemporaryDirectory() as temporary:
        vgg = Path(temporary) / "vgg19.pth"
        for name in names:
            recipe = FOLDER / f"{name}.yaml"
            known = yaml.safe_load(recipe.read_text(encoding="utf-8"))
            stage = "gan" if name.startswith("gan") else "depth"
            settings = [
                f"data.train={clips}", "data.storage=memory", "data.cache=null", "data.hold_out=0", f"batch_size={BATCH}",
                f"output={temporary}/run", "devices=1", "threads=1", "log_every=1", "validate_every=1000", "picture_every=1000",
                "strategy=auto", "sync_batch_norm=false",
            ]  # fmt: skip
            if "encoder_weights" in known:
                settings.append("encoder_weights=null")
            if stage == "gan":
                depth = Path(temporary) / f"{name}.safetensors"
                save_depth(depth, DepthNetwork(preset(known["model"]["preset"]).depth), {})
                settings += [f"depth_weights={depth}", "init_from=null"]
                if known["loss"].get("perceptual_features", "vgg19") == "vgg19":
                    if not vgg.exists():
                        torch.save({f"features.{key}": value for key, value in _vgg19()[0].state_dict().items()}, vgg)
                    settings.append(f"loss.perceptual_file={vgg}")
            else:
                settings += ["views.rounds=0"] if "views" in known else []
            short, _ = cost(recipe, stage, [*settings, f"max_steps={FEW}"])
            long, memory = cost(recipe, stage, [*settings, f"max_steps={MORE}"])
            seconds = (long - short) / (BATCH * (MORE - FEW))
            batch = known["batch_size"] * known.get("devices", 1)
            table.add_row(name, str(known["data"]["size"]), str(batch), f"{seconds:.2f}", f"{3600 / seconds:,.0f}", f"{memory / 1024:.1f}")
            print(f"{name}: {seconds:.2f} s a sample, {memory / 1024:.1f} GB", flush=True)
    Console(width=120).print(table)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] or list(RECIPES))
