"""Marks in files that say by what a picture or a video was made: written into every output, and found again in any file.

An XMP packet says it in the terms of the IPTC, which picture agencies and platforms read: `trainedAlgorithmicMedia` for what a trained
model made, `compositeWithTrainedAlgorithmicMedia` for a photo into which such a part was put. XMP has a place in every format that is
written here, except BMP. Videos say it in a comment too, which players show.

Content Credentials (C2PA) say the same in a statement that is signed with the user's own certificate, and unlike those marks show whether
the file was changed since. The extra `credentials` brings the library. It is used without a network, so no time stamp is fetched and no
certificate is looked up.
"""

from __future__ import annotations

import json
import mmap
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

from dagan.checks import printable, require_file
from dagan.errors import InputError, require_extra

if TYPE_CHECKING:
    import c2pa


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


@lru_cache(maxsize=32)  # Each picture of a live camera asks for the same packet, and asking for the version takes most of a millisecond.
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
    writers = {"PNG": _png, "GIF": _gif, "WebP": _webp, "JPEG": jpeg_with}
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


def jpeg_with(data: bytes, packet: bytes) -> bytes:
    """Returns a JPEG file that carries an XMP packet too."""
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


TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WebP": "image/webp", "GIF": "image/gif", "TIFF": "image/tiff", "MP4": "video/mp4"}
SUFFIXES = (".mp4", ".m4v", ".mov", ".png", ".apng", ".webp", ".gif", ".jpg", ".jpeg", ".tif", ".tiff")
_UNTRUSTED = "signingCredential.untrusted"


def check_credentials(files: tuple[Path, Path], output: Path) -> None:
    """Signs a tiny picture, so that what cannot work is refused before any work.

    Raises InputError where the library is missing, where the output's format cannot hold credentials, and where certificate and key are
    missing, do not fit each other, or are not of the kind that the standard asks for.
    """
    from PIL import Image

    require_extra("credentials", "signing Content Credentials")
    if output.suffix.lower() not in SUFFIXES:
        raise InputError(f"{output}: {output.suffix} files cannot hold Content Credentials: choose one of {', '.join(SUFFIXES)}")
    picture, signed = BytesIO(), BytesIO()
    Image.new("RGB", (16, 16)).save(picture, "PNG")
    picture.seek(0)
    with _builder(Provenance("none")) as builder, _signer(files) as signer, _refusing(files):
        builder.sign(signer, "image/png", picture, signed)


def stamp(path: Path, provenance: Provenance) -> None:
    """Marks a finished file in its place, and signs it where that is asked for. Raises InputError as `sign` does."""
    put_xmp(path, xmp_packet(provenance))
    if provenance.credentials is not None:
        sign(path, provenance)


def sign(path: Path, provenance: Provenance) -> None:
    """Signs a finished file in its place. Raises InputError as `check_credentials` does."""
    assert provenance.credentials is not None
    kind = TYPES.get(kind_of(path) or "", "")
    signed = path.with_name(f"{path.stem}.signed{path.suffix}")
    try:
        with (
            _builder(provenance) as builder,
            _signer(provenance.credentials) as signer,
            path.open("rb") as source,
            signed.open("w+b") as target,
            _refusing(provenance.credentials),
        ):
            builder.sign(signer, kind, source, target)
        signed.replace(path)
    finally:
        signed.unlink(missing_ok=True)


def _builder(provenance: Provenance) -> c2pa.Builder:
    import c2pa

    name, number = software().split()
    agent = {"name": name, "version": number}
    action = {
        "action": "c2pa.created",
        "softwareAgent": agent,
        "digitalSourceType": SOURCE_TYPES + provenance.source_type,
        "description": provenance.sentence,
    }
    manifest = {"claim_generator_info": [agent], "assertions": [{"label": "c2pa.actions", "data": {"actions": [action]}}]}
    return c2pa.Builder(json.dumps(manifest))


@contextmanager
def _signer(files: tuple[Path, Path]) -> Iterator[c2pa.Signer]:
    import c2pa

    certificate, key = files
    require_file(certificate, "certificate")
    require_file(key, "private key")
    with _refusing(files):
        info = c2pa.C2paSignerInfo(_algorithm(key), certificate.read_bytes(), key.read_bytes(), None)
        signer = c2pa.Signer.from_info(info)
    with signer:
        yield signer


def _algorithm(key: Path) -> bytes:
    """Returns the name of the algorithm for which a private key is made. Raises InputError for a file that holds none, or a locked one."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        loaded = load_pem_private_key(key.read_bytes(), None)
    except (ValueError, TypeError):  # A key that asks for a password raises a TypeError.
        raise InputError(f"{key} holds no private key in PEM without a password: give one") from None
    if isinstance(loaded, ed25519.Ed25519PrivateKey):
        return b"ed25519"
    if isinstance(loaded, rsa.RSAPrivateKey):
        return b"ps256"
    curves = {"secp256r1": b"es256", "secp384r1": b"es384", "secp521r1": b"es512"}
    if isinstance(loaded, ec.EllipticCurvePrivateKey) and loaded.curve.name in curves:
        return curves[loaded.curve.name]
    raise InputError(f"{key} is a key of a kind that Content Credentials do not use: give one of P-256, P-384, P-521, Ed25519 or RSA")


@contextmanager
def _refusing(files: tuple[Path, Path]) -> Iterator[None]:
    import c2pa

    try:
        yield
    except c2pa.C2paError as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"{files[0]} and {files[1]} cannot sign ({reason}): give a chain of PEM certificates, the signer's own first and not signed by "
            "itself, and the key that belongs to it"
        ) from None


@dataclass(frozen=True)
class CredentialsFound:
    """What the Content Credentials of a file say."""

    intact: bool
    """Whether the file is as it was signed."""
    signer: str
    """Whom the certificate names."""
    trusted: bool
    """Whether the certificate is on a list of trusted ones. Without a network there is none, so this is seldom so."""
    tool: str
    """The program that made the statement."""
    source_types: tuple[str, ...]
    """The IPTC's words for what the file is."""

    def __str__(self) -> str:
        state = "the file is as it was signed" if self.intact else "THE FILE WAS CHANGED since, or the statement is damaged"
        said = f", which says {', '.join(self.source_types)}" if self.source_types else ""
        trust = "" if self.trusted else " (nobody here vouches for that name)"
        return f"signed by {self.signer}{trust}, with {self.tool}{said}; {state}"


def find_credentials(path: Path) -> CredentialsFound | None:
    """Reads the Content Credentials of a file; None where it has none. Raises InputError where the library is missing."""
    require_extra("credentials", "reading Content Credentials")
    import c2pa

    try:
        with path.open("rb") as file, c2pa.Reader(TYPES[kind_of(path) or ""], file) as reader:
            found: dict[str, Any] = json.loads(reader.json())
    except c2pa.C2paError.ManifestNotFound:
        return None
    except c2pa.C2paError as error:
        return CredentialsFound(False, "nobody who could be read", False, f"a program that could not be read ({str(error)[:80]})", ())
    active = found.get("manifests", {}).get(found.get("active_manifest"), {})
    agents = active.get("claim_generator_info") or [{}]
    signature = active.get("signature_info") or {}
    kinds = (
        action["digitalSourceType"].rpartition("/")[2]
        for assertion in active.get("assertions", [])
        if assertion.get("label", "").startswith("c2pa.actions")
        for action in assertion["data"].get("actions", [])
        if "digitalSourceType" in action
    )
    codes = {fault.get("code") for fault in found.get("validation_status", [])}
    return CredentialsFound(
        intact=not codes - {_UNTRUSTED},
        signer=" of ".join(str(signature[key]) for key in ("common_name", "issuer") if signature.get(key)) or "an unnamed signer",
        trusted=_UNTRUSTED not in codes,
        tool=f"{agents[0].get('name', 'an unnamed program')} {agents[0].get('version', '')}".strip(),
        source_types=tuple(dict.fromkeys(kinds)),
    )
