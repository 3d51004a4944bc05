"""Content Credentials (C2PA): a signed statement in a file about how it was made, written with the user's own certificate and read.

They say the same as the marks of `dagan.media.provenance`, and unlike those show whether the file was changed since. The extra
`credentials` brings the library. It is used without a network, so no time stamp is fetched and no certificate is looked up.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagan.checks import require_file
from dagan.errors import InputError, require_extra
from dagan.media.provenance import SOURCE_TYPES, Provenance, kind_of, put_xmp, software, xmp_packet

if TYPE_CHECKING:
    import c2pa

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
