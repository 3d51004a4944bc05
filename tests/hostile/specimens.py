"""A sound file of every kind that a command reads, and the commands that read it.

Each specimen lies in the folder of samples under its name; a case copies that folder, damages the one file and runs the command there.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image
from released_files import write_small

from conftest import moving_blob
from running_samples import moving_pictures, save_tiny_model, write_clip

SMALL = "encoder_widths: [8, 8, 12, 16, 24], decoder_widths: [8, 8, 8, 12, 16], size: null"
HOURGLASS = "hourglass: {width: 8, max_width: 16, levels: 3}"
DEPTH_RECIPE = f"""output: run
data: {{train: clips, size: 64, hold_out: 0.3}}
model: {{preset: lite-256, {SMALL}}}
egomotion: {{encoder: lite, encoder_widths: [8, 8, 12, 16, 24]}}
loss: {{scales: 1}}
"""
GAN_RECIPE = f"""output: run
depth_weights: trained/depth.safetensors
data: {{train: clips, size: 64, hold_out: 0.3}}
augment: {{brightness: 0.1, zoom: [0.9, 1.1], shift: 0.05}}
sampling: {{still: 0.25}}
model:
  name: tiny-64
  image_size: 64
  motion_size: 32
  depth: {{encoder: lite, {SMALL}}}
  keypoints: {{count: 4, {HOURGLASS}}}
  motion: {{{HOURGLASS}}}
  generator: {{decoder: pyramid, downs: 3, width: 8, max_width: 16, blocks: 1}}
loss: {{perceptual: 0, l1: 10, warped: 1, adversarial: 0}}
"""
MODEL = ("--model", "tiny.safetensors", "--device", "cpu")
FEW = ("--every", "5", "--json", "out.json")
ANIMATE = ("animate", "photo.png", "{}", "-o", "out.mp4", "--no-crop", *MODEL)
STILL = ("animate", "{}", "good.motion", "-o", "out.mp4", "--no-crop", *MODEL)
DEPTH = ("depth", "{}", "-o", "out.png", "--no-crop", *MODEL)
DEPTHS = ("depth", "{}", "-o", "out.npz", "--no-crop", *MODEL)
# Whatever a damaged recipe says: a few short steps.
STEPS = (
    "max_steps=1", "batch_size=2", "accumulate=1", "validation_samples=2", "max_minutes=0.1", "accelerator=cpu", "devices=1", "threads=1",
    "output=run",
)  # fmt: skip


HEADS = ("evaluate", "depth", "heads", "--weights", "tiny.safetensors", "--size", "64")
HEAD = "head_0_00000"  # of the clip that `dagan synth` makes
PREPARATIONS = (
    ("animate", "photo.png", "clip.mp4", "-o", "prepared.mp4", "--no-crop", "--save-motion", "good.motion", *MODEL),
    ("synth", "heads", "--clips", "1", "--size", "64", "--frames", "4"),
    ("train", "depth", "depth.yaml", *STEPS[:-1], "output=trained"),
)


@dataclass(frozen=True)
class Specimen:
    """path: of the file, below the folder of samples. commands: argument lists, `{}` stands for the path. text: whether it is one."""

    path: str
    commands: tuple[tuple[str, ...], ...]
    text: bool = False


VIDEOS = ("clip.mp4", "clip.mov", "clip.mkv", "clip.webm", "clip.ts", "clip.avi", "clip.gif", "clip.webp", "clip.png")
PHOTOS = ("photo.jpg", "picture.png", "photo.webp", "photo.tif", "photo.bmp", "photo.gif")
SPECIMENS = (
    *(Specimen(name, (ANIMATE, DEPTHS)) for name in VIDEOS),
    *(Specimen(name, (STILL, DEPTH)) for name in PHOTOS),
    Specimen("good.motion", (("animate", "photo.png", "{}", "-o", "out.mp4", "--no-crop", *MODEL),)),
    Specimen("tiny.safetensors", (
        ("animate", "photo.png", "good.motion", "-o", "out.mp4", "--no-crop", "--device", "cpu", "--model", "{}"),
        ("depth", "photo.png", "-o", "out.png", "--no-crop", "--device", "cpu", "--model", "{}"),
        ("evaluate", "depth", "heads", "--weights", "{}", "--size", "64", "--limit", "1"),
    )),
    *(Specimen(f"graphs/{name}.onnx", (
        ("animate", "photo.png", "clip.mp4", "-o", "out.mp4", "--no-crop", "--model", "graphs"),
    )) for name in ("encoder", "keypoints", "generator")),
    Specimen("graphs/export.json", (("animate", "photo.png", "clip.mp4", "-o", "out.mp4", "--no-crop", "--model", "graphs"),), text=True),
    Specimen("depth.yaml", (("train", "depth", "{}", *STEPS),), text=True),
    Specimen("gan.yaml", (("train", "gan", "{}", *STEPS),), text=True),
    Specimen("trained/last.ckpt", (
        ("train", "depth", "depth.yaml", *STEPS[:-1], "output=trained", "max_steps=2"),
        ("evaluate", "depth", "heads", "--weights", "{}", "--size", "64", "--limit", "1"),
    )),
    Specimen("trained/depth.safetensors", (("train", "gan", "gan.yaml", *STEPS, "depth_weights={}"),)),
    Specimen("trained/log.jsonl", (("train", "depth", "depth.yaml", *STEPS[:-1], "output=trained", "max_steps=2"),), text=True),
    *(Specimen(f"heads/{HEAD}.{suffix}", (HEADS,), text=suffix == "json") for suffix in ("npz", "json", "mp4")),
    Specimen("released/model.pth.tar", (("convert", "{}", "-o", "out.safetensors", "--image-size", "64"),)),
    Specimen("pairs.csv", (("evaluate", "cross-identity", "clips", "--pairs", "{}", *MODEL, *FEW),), text=True),
    Specimen("results/id0#v#0.mp4", (("evaluate", "reconstruction", "clips", "--no-model", "--results", "results", *FEW),)),
    Specimen("clips/id0#v#0.mp4", (
        ("evaluate", "reconstruction", "clips", *MODEL, *FEW), ("train", "depth", "depth.yaml", *STEPS),
    )),
    Specimen("clips/metadata.csv", (("evaluate", "reconstruction", "clips", *MODEL, "--hold-out", "0.4", *FEW),), text=True),
)  # fmt: skip


def write_samples(folder: Path, graphs: Path) -> Iterator[tuple[str, ...]]:
    """Writes all specimens, and what the commands need beside them; gives the commands that are to be run there for the rest.

    `graphs` is a folder of the tiny model's exported graphs.
    """
    pictures = moving_pictures(8)
    for name in VIDEOS[:2]:
        write_clip(folder / name, pictures, sound=True)
    for name, codec in (("clip.mkv", "libx264"), ("clip.webm", "libvpx-vp9"), ("clip.ts", "libx264"), ("clip.avi", "mpeg4")):
        _encode(folder / name, pictures, codec)
    images = [Image.fromarray(p) for p in pictures]
    for name in ("clip.gif", "clip.webp", "clip.png"):
        images[0].save(folder / name, save_all=True, append_images=images[1:], duration=40)
    for name in (*PHOTOS, "photo.png"):
        images[0].save(folder / name)
    save_tiny_model(folder / "tiny.safetensors")
    shutil.copytree(graphs, folder / "graphs")
    for part in ("clips", "results"):
        (folder / part).mkdir()
        for i in range(3):
            write_clip(folder / part / f"id{i}#v#0.mp4", moving_blob(i, 6))
    (folder / "clips" / "metadata.csv").write_text("file,identity\n" + "".join(f"id{i}#v#0.mp4,id{i}\n" for i in range(3)))
    (folder / "pairs.csv").write_text("source,driving,frame\nid0#v#0.mp4,id1#v#0.mp4,0\nid1#v#0.mp4,id2#v#0.mp4,2\n")
    (folder / "released").mkdir()
    write_small(folder / "released", use_depth=False)
    (folder / "depth.yaml").write_text(DEPTH_RECIPE)
    (folder / "gan.yaml").write_text(GAN_RECIPE)
    # These make further samples: a motion, heads with their truth, a trained depth network.
    yield from PREPARATIONS


def _encode(path: Path, pictures: list[np.ndarray], codec: str) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
