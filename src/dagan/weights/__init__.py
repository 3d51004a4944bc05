"""Model files: safetensors that carry their configuration, the bundled models, the hub, and the released layout."""

from dagan.models.dagan import fold
from dagan.weights.convert import load_released
from dagan.weights.files import bundled, load, read_card, read_model, save_model

__all__ = ["bundled", "fold", "load", "load_released", "read_card", "read_model", "save_model"]
