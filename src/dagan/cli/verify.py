"""`dagan verify` says what marks a file carries about how it was made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

UNMARKED, CHANGED = 1, 3  # Exit statuses besides 0, which means that the file says that it is synthetic, and 2, which means bad input.


def verify(file: Annotated[Path, typer.Argument(help="The picture or video to look at.", show_default=False)]) -> None:
    """Say what marks a picture or video carries about how it was made.

    Ends with status 0 where marks say that it is synthetic, 1 where there are none, 2 where the file cannot be read, and 3 where Content
    Credentials show that it was changed.
    """
    from dagan.errors import InputError
    from dagan.media.provenance import SYNTHETIC, TYPES, find_credentials, find_xmp

    kind, packets = find_xmp(file)
    synthetic = any(packet.synthetic for packet in packets)
    if kind == "BMP":
        print("XMP metadata: none, and BMP files cannot hold any")
    for packet in dict.fromkeys(packets):
        print(f"XMP metadata: {packet}")
    if not packets and kind != "BMP":
        print("XMP metadata: none")
    changed = False
    if kind in TYPES:
        try:
            credentials = find_credentials(file)
            print(f"Content Credentials: {credentials or 'none'}")
        except InputError as error:
            credentials = None
            print(f"Content Credentials: not looked for ({error})")
        changed = credentials is not None and not credentials.intact
        synthetic |= credentials is not None and any(word in SYNTHETIC for word in credentials.source_types)
    else:
        print(f"Content Credentials: none, and {kind} files cannot hold any")
    if changed:
        print(f"{file}: do not rely on these marks: the file is not the one that was signed")
        raise typer.Exit(CHANGED)
    if not synthetic:
        print(f"{file}: no mark says that it is synthetic, which proves nothing: marks can be removed")
        raise typer.Exit(UNMARKED)
    print(f"{file}: marks say that it is synthetic")
