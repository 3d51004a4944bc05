"""`dagan app` opens the page in the browser, to animate, measure depth and use the live camera; `dagan live` needs no page.

With `dagan live` a camera of this machine drives a portrait: on screen, or as a camera for other programs.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer

from dagan.cli.options import (
    AbsoluteOption,
    LimitOption,
    ModelOption,
    MoveOption,
    PrecisionOption,
    RunDeviceOption,
    RuntimeOption,
    StrengthOption,
    open_chosen,
)
from dagan.examples import PORTRAIT

PortOption = Annotated[
    int | None,
    typer.Option(help="Serve at this port. Default: the first that is free from 7860 on.", show_default=False, min=0, max=65535),
]
BrowserOption = Annotated[
    bool | None,
    typer.Option("--browser/--no-browser", help="Open the page in the browser. Default: where there is a screen.", show_default=False),
]


def app(
    port: PortOption = None,
    browser: BrowserOption = None,
    share: Annotated[bool, typer.Option("--share", help="Let other machines of the network open the page, with a password.")] = False,
    password: Annotated[
        str | None,
        typer.Option(
            envvar="DAGAN_PASSWORD", help="Visitors must know this password. Default with --share: one is made up.", show_default=False
        ),
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="Serve with https, with the certificate in this file.", show_default=False)
    ] = None,
    key: Annotated[Path | None, typer.Option(help="The key of the certificate is in this file.", show_default=False)] = None,
    model: ModelOption = "lite-256",
    runtime: RuntimeOption = None,
    device: RunDeviceOption = "auto",
    precision: PrecisionOption = "auto",
) -> None:
    """Open the page in the browser: animate, live camera, depth."""
    from dagan.app.server import PageSettings, serve
    from dagan.cli.console import warn
    from dagan.processes import keep_freed_memory

    keep_freed_memory()
    if share and password is None:
        password = secrets.token_urlsafe(9)
        warn(f"the password is {password}")
    if share and certificate is None:
        warn("without --certificate the password and all pictures travel unencrypted, and browsers of other machines lend no camera")
    settings = PageSettings(host="0.0.0.0" if share else "127.0.0.1", port=port, password=password, certificate=certificate, key=key)
    serve(lambda: open_chosen(model, runtime, None, device, precision), settings, opens_browser(browser), print)


def opens_browser(browser: bool | None) -> bool:
    """Says whether a browser is opened: as asked for, or where there is a screen."""
    if browser is not None:
        return browser
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def live(
    portrait: Annotated[
        Path | None, typer.Argument(help="The photo shows the face to drive. Default: the bundled portrait.", show_default=False)
    ] = None,
    camera: Annotated[
        str, typer.Option(help="This camera drives: a number, counted from 0, a device's name, or a video file in a camera's place.")
    ] = "0",
    to: Annotated[str, typer.Option(help="The portrait is shown here: screen, virtual-camera, or nothing to measure alone.")] = "screen",
    virtual_device: Annotated[
        str | None, typer.Option(help="Use the virtual camera of this name. Default: the first that is free.", show_default=False)
    ] = None,
    move: MoveOption = "all",
    strength: StrengthOption = 1.0,
    absolute: AbsoluteOption = False,
    limit_motion: LimitOption = True,
    mirror: Annotated[
        bool | None, typer.Option("--mirror/--no-mirror", help="Mirror the portrait. Default: on screen alone.", show_default=False)
    ] = None,
    port: PortOption = None,
    browser: BrowserOption = None,
    model: ModelOption = "lite-256",
    runtime: RuntimeOption = None,
    device: RunDeviceOption = "auto",
    precision: PrecisionOption = "auto",
) -> None:
    """Drive a portrait with a camera, live."""
    import webbrowser

    from dagan.animate.animator import Animator
    from dagan.app.screening import check_shown, run_live, shown_to
    from dagan.cli.console import warn
    from dagan.media.framing import FaceFinder
    from dagan.media.images import read_image
    from dagan.media.video import camera_pictures
    from dagan.media.view import view_still
    from dagan.processes import keep_freed_memory

    keep_freed_memory()
    check_shown(to)
    source = portrait or PORTRAIT
    picture = read_image(source)
    framing = view_still(picture, FaceFinder(), str(source), warn)
    pictures = camera_pictures(camera)
    engine = open_chosen(model, runtime, None, device, precision)

    def animate(_: object) -> Animator:
        animator = Animator(engine, relative=not absolute, limit_motion=limit_motion, move=move, strength=strength)
        animator.set_source(picture, framing=framing)
        return animator

    def page(address: str) -> None:
        warn(f"the picture is at {address}: Ctrl-C ends it")
        if opens_browser(browser):
            webbrowser.open(address)

    with shown_to(to, engine, port, virtual_device, page) as (show, name):
        if to == "virtual-camera":
            warn(f"the picture goes to the camera {name}: Ctrl-C ends it")
        report = run_live(engine, picture, animate, pictures, show, to == "screen" if mirror is None else mirror)
    print(
        f"{report.pictures} pictures, {report.rate:.1f} a second, {1000 * report.latency:.0f} ms each from camera to portrait (median); "
        f"{report.dropped} left out because a newer one was there, {report.without_face} without a face"
    )
