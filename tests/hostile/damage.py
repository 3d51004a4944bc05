"""Ways in which files get damaged on disks and lines, or made to hurt: each a function of a generator and the file's bytes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Damage = Callable[[np.random.Generator, bytes], bytes]

# How files of other kinds begin.
HEADERS = (
    b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0\x00\x10JFIF\x00", b"RIFF\xff\xff\xff\x7fWEBPVP8 ", b"GIF89a\xff\xff\xff\xff",
    b"II*\x00\x08\x00\x00\x00", b"BM\xff\xff\xff\x7f", b"\x00\x00\x00\x18ftypmp42", b"\x1aE\xdf\xa3", b"G@\x00\x10", b"PK\x03\x04",
    b"\x80\x02}q\x00", b"\x93NUMPY\x01\x00", b"\xff\xff\xff\xff\xff\xff\xff\x7f{", b"#!/bin/sh\nexit 1\n", b"<?xml version='1.0'?>",
)  # fmt: skip
# What a text can hold that its reader did not expect.
WORDS = (
    b"nan", b"inf", b"-1", b"0", b"1e99", b"99999999999999999999", b"null", b"true", b"[]", b"{}", b'""', b"\x00", b"\xff\xfe", b"..",
    b"../../../etc/passwd", b"%s%n", "\u202e\U0001f600".encode(), b"&a [*a]", b"!!python/object/apply:os.system [echo]", b"," * 50, b"\n\n",
)  # fmt: skip


def truncated(rng: np.random.Generator, data: bytes) -> bytes:
    """The first part of it."""
    return data[: int(len(data) * rng.random())]


def nearly_empty(rng: np.random.Generator, data: bytes) -> bytes:
    """A few bytes, or none."""
    return data[: int(rng.integers(0, 20))]


def flipped(rng: np.random.Generator, data: bytes) -> bytes:
    """With a few bits turned over, anywhere."""
    return _flip(rng, data, len(data))


def flipped_early(rng: np.random.Generator, data: bytes) -> bytes:
    """With a few bits turned over where files say what they are."""
    return _flip(rng, data, min(len(data), 256))


def overwritten(rng: np.random.Generator, data: bytes) -> bytes:
    """With a block of noise, or of zeros."""
    start = int(rng.integers(0, max(1, len(data))))
    length = int(rng.integers(1, 1 + max(1, len(data) // 4)))
    block = rng.bytes(length) if rng.random() < 0.5 else bytes(length)
    return (data[:start] + block + data[start + length :])[: len(data)]


def renamed(rng: np.random.Generator, data: bytes) -> bytes:
    """With the beginning of another kind of file in place of its own."""
    header = HEADERS[rng.integers(len(HEADERS))]
    return header + data[len(header) :]


def another(rng: np.random.Generator, data: bytes) -> bytes:
    """Noise behind the beginning of another kind of file."""
    return HEADERS[rng.integers(len(HEADERS))] + rng.bytes(int(rng.integers(0, 2000)))


def repeated(rng: np.random.Generator, data: bytes) -> bytes:
    """With a part of it twice, so that everything behind has moved."""
    start, end = sorted(rng.integers(0, len(data) + 1, 2).tolist())
    return data[:end] + data[start:end] + data[end:]


def cut_out(rng: np.random.Generator, data: bytes) -> bytes:
    """With a part of it missing."""
    start, end = sorted(rng.integers(0, len(data) + 1, 2).tolist())
    return data[:start] + data[end:]


def reworded(rng: np.random.Generator, data: bytes) -> bytes:
    """A text with a word that does not belong there, in place of one that was there or between two."""
    words = data.replace(b",", b" , ").replace(b":", b" : ").split(b" ")
    place = int(rng.integers(len(words)))
    words[place : place + int(rng.integers(0, 2))] = [WORDS[rng.integers(len(WORDS))]]
    return b" ".join(words).replace(b" , ", b",").replace(b" : ", b":")


BINARY: tuple[Damage, ...] = (truncated, nearly_empty, flipped, flipped_early, overwritten, renamed, another, repeated, cut_out)
TEXT: tuple[Damage, ...] = (*BINARY, reworded, reworded, reworded)


def _flip(rng: np.random.Generator, data: bytes, within: int) -> bytes:
    if within == 0:
        return data
    changed = bytearray(data)
    for place in rng.integers(0, within, int(rng.integers(1, 30))):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)
