"""Memory that is kept: glibc alone is told."""

import ctypes
import sys
from types import SimpleNamespace

import pytest

from dagan.processes import keep_freed_memory


@pytest.fixture
def told(monkeypatch):
    """What the C library is told, (option, value) each."""
    calls = []
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=lambda *words: calls.append(words)))
    return calls


def test_one_arena_and_larger_thresholds(told):
    keep_freed_memory()
    assert dict(told) == {-8: 1, -3: 2**25, -1: 2**27}


def test_other_systems_and_libraries_are_left_alone(told, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    keep_freed_memory()
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("asked"))
    keep_freed_memory()
    assert told == []
