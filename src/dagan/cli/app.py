"""`dagan app` opens the page: animate, measure depth and use the live camera in the browser."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer

from dagan.cli.options import ModelOption, PrecisionOption, RunDeviceOption, RuntimeOption, open_chosen

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
