"""Errors that users can mend: bad input, and parts of the installation that are not there."""

from __future__ import annotations

from importlib.util import find_spec


class InputError(ValueError):
    """Bad input. The message names the file or value, what is wrong with it, and what would work."""


# These are the modules that each extra brings, by the names under which they are imported.
EXTRAS = {
    "train": ("lightning_fabric", "tensorboard", "kornia"),
    "evaluate": ("torchmetrics", "jinja2", "markupsafe", "onnxruntime"),
    "hub": ("huggingface_hub",),
    "app": ("gradio", "fastapi", "uvicorn", "websockets"),
    "live": ("pyvirtualcam",),
    "prepare": ("scenedetect",),
    "cluster": ("ray",),
    "export": ("onnx", "onnxscript", "openvino"),
    "credentials": ("c2pa",),
    "shards": ("webdataset", "fsspec"),
}


def require_extra(extra: str, use: str) -> None:
    """Raises InputError where a module of the extra is not installed. `use` says what needs it, such as "training"."""
    missing = [name for name in EXTRAS[extra] if find_spec(name) is None]
    if missing:
        raise InputError(f"{use} needs {', '.join(missing)}: pip install 'dagan[{extra}]'")


def missing_module(error: ImportError) -> str | None:
    """Returns the sentence for an import that failed because an extra is not installed, or None for any other."""
    module = (error.name or "").partition(".")[0]
    extra = next((extra for extra, modules in EXTRAS.items() if module in modules), None)
    return None if extra is None else f"this needs {module}, which is not installed: pip install 'dagan[{extra}]'"
