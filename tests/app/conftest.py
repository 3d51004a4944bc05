"""A page that is served in this process, with a tiny model, and short files to upload."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bad_uploads import LIMITS
from dagan.animate.pipeline import AnimateOptions, animate
from dagan.app.guard import GuardSettings
from dagan.app.server import PageServer, PageSettings, make_page
from dagan.app.uploads import PrivateFolder
from dagan.engine.base import Engine
from dagan.engine.open import open_engine
from dagan.examples import PORTRAIT
from dagan.motion.file import DrivingMotion, read_motion, save_motion
from running_samples import tiny_model, write_clip

LONG = "Long"


def speaking(count: int, size: int = 160) -> list[np.ndarray]:
    """The bundled portrait's face, which nods."""
    face = Image.open(PORTRAIT).convert("RGB").crop((130, 0, 330, 200)).resize((size, size))
    return [np.asarray(face.rotate(3 * np.sin(i / 3), translate=(i % 4, 0))) for i in range(count)]


@pytest.fixture(scope="session")
def engine() -> Engine:
    """A tiny model that draws at once."""
    return open_engine(tiny_model())


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory, engine: Engine) -> Path:
    """A folder with a driving video that has sound, and motions for the tiny model: one short, one so long that it has to be stopped."""
    folder = tmp_path_factory.mktemp("samples")
    write_clip(folder / "driving.mp4", speaking(12), sound=True)
    options = AnimateOptions(save_motion=folder / "short.motion")
    animate(engine, PORTRAIT, folder / "driving.mp4", folder / "out.mp4", options)
    short = read_motion(folder / "short.motion")
    many = 400
    long: DrivingMotion = replace(
        short, value=np.tile(short.value, (many, 1, 1)), jacobian=np.tile(short.jacobian, (many, 1, 1, 1)),
        times=tuple(Fraction(i, 25) for i in range(many * len(short) + 1)),
    )  # fmt: skip
    save_motion(folder / "long.motion", long)
    return folder


@dataclass(frozen=True)
class Served:
    """A page that is being served."""

    address: str
    folder: PrivateFolder
    port: int


@pytest.fixture(scope="session")
def serve(engine: Engine, samples: Path) -> Iterator[Callable[..., Served]]:
    """serve(**settings) -> a page that is served until the tests end."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        motions = {"Short": samples / "short.motion", LONG: samples / "long.motion"}
        for module in ("dagan.app.studio", "dagan.app.tabs", "dagan.app.page"):
            patch.setattr(f"{module}.MOTIONS", motions)

        def call(keep_seconds: float = 900, **more: object) -> Served:
            folder = stack.enter_context(PrivateFolder(keep_seconds))
            guard = GuardSettings(body_bytes=6 * 2**20, grace_seconds=1.0, slowest=20_000, idle_seconds=1.0)
            settings = PageSettings(**{"port": 0, "limits": replace(LIMITS, video_frames=6000), "guard": guard, **more})
            server = PageServer(make_page(engine, settings, folder), settings)
            stack.enter_context(server.serving())
            return Served(server.address, folder, server.port)

        yield call


@pytest.fixture(scope="session")
def first_page(serve: Callable[..., Served]) -> Served:
    """The page as it is by default, which all tests of it share."""
    return serve()


@pytest.fixture
def page(first_page: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """The page as it is by default. Gradio knows one folder of uploads at a time, so it is told of this page's again."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(first_page.folder.path))
    return first_page
