"""Marks in files that say by what a picture or a video was made: written into every output, and found again in any file.

An XMP packet says it in the terms of the IPTC, which picture agencies and platforms read: `trainedAlgorithmicMedia` for what a trained
model made, `compositeWithTrainedAlgorithmicMedia` for a photo into which such a part was put. XMP has a place in every format that is
written here, except BMP. Videos say it in a comment too, which players show. Content Credentials, which are signed, are in
`dagan.media.credentials`.
"""

from __future__ import annotations

import mmap
import re
import struct
import zlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from dagan.checks import require_file
from dagan.errors import InputError
from dagan.names import printable

SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
MADE, COMPOSITE = "trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"
SYNTHETIC = (MADE, COMPOSITE, "algorithmicMedia", "compositeSynthetic", "algorithmicallyEnhanced")
_MEANINGS = {MADE: "made by a trained model", COMPOSITE: "a picture with parts made by a trained model"}
_BEGIN, _END = b"<x:xmpmeta", b"</x:xmpmeta>"
_LONGEST = 2**20  # Bytes. No packet that says what is looked for is longer.
_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")  # MP4's box for XMP has this number.
_PNG_KEYWORD = b"XML:com.adobe.xmp"
_GIF_HEAD = b"\x21\xff\x0bXMP DataXMP"  # This opens an application extension.
# A GIF's blocks begin with their length. Readers that skip blocks land in these bytes wherever the packet ends, and come to its end.
_GIF_TAIL = bytes([1, *range(255, -1, -1), 0])


@dataclass(frozen=True)
class Provenance:
    """What an output's marks say."""

    model: str
    """The name of the model that drew."""
    composite: bool = False
    """Whether parts of the output are the photo's or the driving video's own."""
    credentials: tuple[Path, Path] | None = None
    """PEM files of a certificate chain and its private key, with which Content Credentials are signed."""

    @property
    def source_type(self) -> str:
        """The IPTC's word for what it is."""
        return COMPOSITE if self.composite else MADE

    @property
    def sentence(self) -> str:
        """One sentence for people."""
        return f"This is synthetic: {_MEANINGS[self.source_type]} ({software()}, model {printable(self.model)})."


def software() -> str:
    """Returns the program's name and version."""
    return f"dagan {version('dagan')}"


def xmp_packet(provenance: Provenance) -> bytes:
    """Returns the XMP packet, in UTF-8."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
        ' xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"'
        ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        f" xmp:CreatorTool={quoteattr(software())}"
        f' Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPES}{provenance.source_type}">'
        f'<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{escape(provenance.sentence)}</rdf:li></rdf:Alt></dc:description>'
        '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    ).encode()


def container_tags(provenance: Provenance) -> dict[str, str]:
    """Returns tags for a video's container. Matroska and WebM keep the XMP packet among them; others get it in `put_xmp`."""
    return {"comment": provenance.sentence, "description": provenance.sentence, "XMP": xmp_packet(provenance).decode()}


def put_xmp(path: Path, packet: bytes) -> None:
    """Writes an XMP packet into a finished PNG, GIF, WebP, JPEG, MP4 or MOV file. A file of another kind stays as it is."""
    kind = kind_of(path)
    if kind == "MP4":
        with path.open("ab") as file:  # A box at the end moves nothing.
            file.write(struct.pack(">I4s", 8 + len(_UUID) + len(packet), b"uuid") + _UUID + packet)
        return
    writers = {"PNG": _png, "GIF": _gif, "WebP": _webp, "JPEG": _jpeg}
    if kind in writers:
        path.write_bytes(writers[kind](path.read_bytes(), packet))


def _png(data: bytes, packet: bytes) -> bytes:
    content = b"iTXt" + _PNG_KEYWORD + b"\0\0\0\0\0" + packet  # It is not compressed, and has neither language nor translation.
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    after_header = 8 + 25  # The signature and the first chunk, which says the size.
    return data[:after_header] + chunk + data[after_header:]


def _gif(data: bytes, packet: bytes) -> bytes:
    end = data.rstrip(b"\0").rfind(b";")
    return data[:end] + _GIF_HEAD + packet + _GIF_TAIL + data[end:]


def _jpeg(data: bytes, packet: bytes) -> bytes:
    content = b"http://ns.adobe.com/xap/1.0/\0" + packet
    return data[:2] + struct.pack(">2sH", b"\xff\xe1", len(content) + 2) + content + data[2:]


def _webp(data: bytes, packet: bytes) -> bytes:
    chunks = data[12:]
    if chunks[:4] != b"VP8X":  # The simple form has no place for a packet, so it becomes the extended one.
        from io import BytesIO

        from PIL import Image

        with Image.open(BytesIO(data)) as image:
            (width, height), alpha = image.size, image.mode == "RGBA"
        sides = b"".join((side - 1).to_bytes(3, "little") for side in (width, height))
        chunks = struct.pack("<4sIB3x", b"VP8X", 10, 0x10 if alpha else 0) + sides + chunks
    flags = chunks[8] | 0x04
    chunks = chunks[:8] + bytes([flags]) + chunks[9:]
    chunks += struct.pack("<4sI", b"XMP ", len(packet)) + packet + b"\0" * (len(packet) % 2)
    return struct.pack("<4sI4s", b"RIFF", len(chunks) + 4, b"WEBP") + chunks


def kind_of(path: Path) -> str | None:
    """Returns the format of a file by its first bytes: PNG, GIF, WebP, JPEG, TIFF, BMP, MP4 (and MOV) or Matroska (and WebM), or None."""
    with path.open("rb") as file:
        start = file.read(12)
    for begin, kind in (
        (b"\x89PNG\r\n\x1a\n", "PNG"), (b"GIF8", "GIF"), (b"\xff\xd8\xff", "JPEG"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"BM", "BMP"),
        (b"\x1aE\xdf\xa3", "Matroska"),
    ):  # fmt: skip
        if start.startswith(begin):
            return kind
    if start[:4] == b"RIFF" and start[8:] == b"WEBP":
        return "WebP"
    return "MP4" if start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free") else None


@dataclass(frozen=True)
class XmpFound:
    """What the XMP of a file says."""

    source_type: str | None
    """The IPTC's word for what it is, or None where it is not said."""
    tool: str | None
    """The program that made it, or None."""

    @property
    def synthetic(self) -> bool:
        """Says whether it calls the file synthetic."""
        return self.source_type in SYNTHETIC

    def __str__(self) -> str:
        said = "nothing about its origin" if self.source_type is None else f"{_MEANINGS.get(self.source_type, 'its origin')}"
        by = f", by {self.tool}" if self.tool else ""
        return f"{said}{f' ({self.source_type})' if self.source_type else ''}{by}"


def find_xmp(path: Path) -> tuple[str, list[XmpFound]]:
    """Returns a file's format, and what each XMP packet in it says.

    Packets are looked for anywhere in the file, as the standard provides for programs that do not know a format. Raises InputError for a
    file that is missing, unreadable, or of no format that pictures or videos are written in.
    """
    require_file(path, "picture or video")
    kind = kind_of(path)
    if kind is None:
        known = "PNG, JPEG, WebP, GIF, TIFF, BMP, MP4, MOV, MKV and WebM"
        raise InputError(f"{path} is no picture or video of a kind in which marks are looked for: give one of {known}")
    found = []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        begin = data.find(_BEGIN)
        while begin >= 0:
            end = data.find(_END, begin, begin + _LONGEST)
            found.append(_read(data[begin : end if end >= 0 else begin + _LONGEST]))
            begin = data.find(_BEGIN, max(end, begin + 1))
    return kind, found


def _read(packet: bytes) -> XmpFound:
    text = packet.decode("utf-8", "replace")

    def said(pattern: str) -> str | None:
        match = re.search(pattern, text)
        return "".join(char for char in match[1] if char.isprintable())[:200] if match else None

    return XmpFound(said(r"digitalsourcetype/(\w+)"), said(r"""CreatorTool(?:=["']|>)([^"'<]*)"""))
