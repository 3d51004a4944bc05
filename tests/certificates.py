"""A certificate chain of a test's own, of the kind that Content Credentials ask for."""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def write_chain(folder: Path) -> tuple[Path, Path]:
    """Writes a chain (the signer's own certificate, then its authority's) and the signer's key. Returns both paths."""
    now = datetime.datetime.now(datetime.UTC)
    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def certificate(name: str, key: ec.EllipticCurvePrivateKey, is_authority: bool) -> x509.Certificate:
        named, by = (
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, n), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Testers")])
            for n in (name, "Test Authority")
        )
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"), False
        )
        builder = (
            x509.CertificateBuilder().subject_name(named).issuer_name(by).public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=9))
            .add_extension(x509.BasicConstraints(is_authority, None), True)
            .add_extension(
                x509.KeyUsage(digital_signature=not is_authority, key_cert_sign=is_authority, crl_sign=is_authority, **usage), True
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), False)
        )  # fmt: skip
        if not is_authority:
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        return builder.sign(authority, hashes.SHA256())

    pem = serialization.Encoding.PEM
    chain, key = folder / "chain.pem", folder / "key.pem"
    both = certificate("Test Signer", own, False), certificate("Test Authority", authority, True)
    chain.write_bytes(b"".join(one.public_bytes(pem) for one in both))
    key.write_bytes(own.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return chain, key
