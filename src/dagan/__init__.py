"""Depth-aware talking heads: one portrait and a driving video go in, and a talking head comes out.

    import dagan
    model = dagan.load("lite-256")
    animator = dagan.Animator(model)
    animator.set_source(portrait)              # uint8 H x W x 3
    for frame in animator.video("driving.mp4"): ...

Everything is imported on first use, so that `import dagan` and `dagan --help` cost nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagan.animate.animator import Animator
    from dagan.config import ModelConfig, preset
    from dagan.errors import InputError
    from dagan.models.dagan import DaGAN, Output, Source
    from dagan.models.keypoints import Keypoints
    from dagan.motion.transfer import transfer
    from dagan.weights import load, load_released, save_model

__version__ = "0.1.0"

_HOME = {
    "Animator": "dagan.animate.animator",
    "DaGAN": "dagan.models.dagan",
    "InputError": "dagan.errors",
    "Keypoints": "dagan.models.keypoints",
    "ModelConfig": "dagan.config",
    "Output": "dagan.models.dagan",
    "Source": "dagan.models.dagan",
    "load": "dagan.weights",
    "load_released": "dagan.weights",
    "preset": "dagan.config",
    "save_model": "dagan.weights",
    "transfer": "dagan.motion.transfer",
}
__all__ = [
    "Animator", "DaGAN", "InputError", "Keypoints", "ModelConfig", "Output", "Source", "load", "load_released", "preset", "save_model",
    "transfer",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dagan' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
