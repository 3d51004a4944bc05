"""Settings and files are checked here: what is read is whole and right or refused, and names are written so that it can be read again.

Configurations are checked against their annotations wherever they are made. A field's type says what it may hold, such as
`Annotated[int, Ge(1), Le(64)]`; kinds that many fields share have names here. Numbers that are not finite are refused everywhere. A class
checks in its `__post_init__` that its fields agree. YAML and NumPy files that users name or keep are refused in one sentence, whatever is
wrong with them.

Some names of files are no text: they hold bytes that are not UTF-8, which Python reads as lone surrogates (PEP 383). They are escaped in
JSON, and libraries that take only text get another name of the file.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union

import numpy as np
import yaml
from annotated_types import Ge, Gt, Le, Lt, MultipleOf
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model

from dagan.errors import InputError

T = TypeVar("T")


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("must be odd")
    return value


Share = Annotated[float, Ge(0), Le(1)]
ShareBelowOne = Annotated[float, Ge(0), Lt(1)]
# The upper limits are far beyond what anybody needs. They catch slips such as a missing minus in an exponent.
Weight = Annotated[float, Ge(0), Le(1e6)]
Positive = Annotated[float, Gt(0), Le(1e6)]
Channels = Annotated[int, Ge(1), Le(8192)]
Kernel = Annotated[int, Ge(1), Le(31), AfterValidator(_odd)]
# The smallest side is one that a network of five halvings with mirrored edges can take.
Side = Annotated[int, Ge(64), Le(4096), MultipleOf(32)]
Steps = Annotated[int, Ge(1), Le(10**9)]
Few = Annotated[int, Ge(1), Le(1024)]
Seed = Annotated[int, Ge(0), Lt(2**63)]


class Checked:
    """The base of frozen dataclasses that refuse unknown keys, wrong types, numbers out of range and numbers that are not finite.

    Making one raises InputError with a sentence such as "generator width is 4: must be at least 8".
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    def __post_init__(self) -> None:
        cls: Any = type(self)
        try:
            _fields_of(cls).model_validate(vars(self))
        except ValidationError as error:
            place, fault = _first_fault(cls, error)
            raise InputError(f"{_spoken(cls)} {_joined(place, fault)}".strip()) from None


def require(condition: bool, field_name: str, value: object, rule: str) -> None:
    """Raises InputError, "`field_name` is `value`: `rule`", where the condition does not hold."""
    if not condition:
        raise InputError(f"{field_name} is {value!r}: {rule}")


def parse(cls: type[T], data: Any, where: str) -> T:
    """Reads a plain mapping into the dataclass `cls`. `where` names the file or argument in errors.

    Raises InputError for unknown keys (with the nearest known ones), for wrong types and for values out of range.
    """
    try:
        return TypeAdapter(cls).validate_python(data)
    except ValidationError as error:
        place, fault = _first_fault(cls, error)
        raise InputError(f"{where}: {_joined(place, fault)}") from None


def dump(config: Any) -> dict[str, Any]:
    """Returns the configuration as a plain mapping, which `parse` reads back to an equal object."""
    return TypeAdapter(type(config)).dump_python(config, mode="json")


def nearest(word: str, choices: Mapping[str, Any] | list[str]) -> str:
    """Returns "nearest: a, b (all: ...)" for error messages."""
    names = list(choices)
    close = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    return (f"nearest: {', '.join(close)}; " if close else "") + f"there is {', '.join(names)}"


@cache
def _fields_of(cls: type[Any]) -> type[BaseModel]:
    """Makes a pydantic model with the fields of a dataclass. It checks the values of an object that exists already."""
    hints = typing.get_type_hints(cls, include_extras=True)
    wanted: dict[str, Any] = {f.name: (hints[f.name], ...) for f in dataclasses.fields(cls)}
    config = ConfigDict(**cls.__pydantic_config__, arbitrary_types_allowed=True, protected_namespaces=())
    return create_model(cls.__name__, __config__=config, **wanted)


def _spoken(cls: type[Any]) -> str:
    """Returns "gan loss" for GanLossConfig, and nothing for a recipe, whose fields are known by their own names."""
    words = re.findall("[A-Z][a-z]*", cls.__name__.removesuffix("Config"))
    return "" if words[-1:] == ["Recipe"] else " ".join(words).lower()


def _first_fault(cls: type[Any], error: ValidationError) -> tuple[str, str]:
    """Returns where the first fault is ("optimiser.lr") and what it is ("is -1: must be above 0"). Members of a union are joined."""
    found = error.errors()
    first = found[0]
    place = _place(cls, first["loc"])
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        *parents, name = (str(part) for part in first["loc"])
        return "", f": unknown key {'.'.join((*parents, name))!r}: {nearest(name, _names_at(cls, parents))}"
    if first["type"] == "missing":
        return place, "is missing"
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InputError):  # The cause is a whole sentence.
        return place, f": {cause}"
    rules = dict.fromkeys(_rule(e["msg"]) for e in found if _place(cls, e["loc"]) == place)
    return place, f"is {_short(first['input'])}: {', or '.join(rules)}"


def _joined(place: str, fault: str) -> str:
    return f"{place}{fault}".removeprefix(": ") if fault.startswith(":") else f"{place} {fault}".strip()


def _rule(message: str) -> str:
    """Puts what pydantic says into this program's words."""
    for words, ours in (
        ("Value error, ", ""), ("Input should be", "must be"), ("Input should", "must"), ("greater than or equal to", "at least"),
        ("less than or equal to", "at most"), ("greater than", "above"), ("less than", "below"),
    ):  # fmt: skip
        message = message.replace(words, ours)
    return re.sub(r"a dictionary or an instance of \w+", "a mapping of keys to values", message)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _place(cls: Any, loc: tuple[int | str, ...]) -> str:
    """Returns a fault's place without the words that pydantic adds for members of a union."""
    kept: list[str] = []
    for part in loc:
        inside = _inside(cls, part)
        if inside is not None:
            kept.append(str(part))
            cls = inside
    return ".".join(kept)


def _names_at(cls: Any, path: list[str]) -> list[str]:
    for name in path:
        cls = _inside(cls, name) or cls
    return [f.name for f in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []


def _inside(cls: Any, part: int | str) -> Any:
    """Returns the type at a key of a dataclass, at a place of a sequence or under a mapping's key; None for anything else."""
    if dataclasses.is_dataclass(cls):
        return _class_of(typing.get_type_hints(cls)[str(part)]) if part in {f.name for f in dataclasses.fields(cls)} else None
    members = typing.get_args(cls)
    if typing.get_origin(cls) in (dict, Mapping):
        return _class_of(members[-1])
    return _class_of(members[0]) if isinstance(part, int) or part.isdigit() else None


def _class_of(hint: Any) -> Any:
    """Returns what a field may hold besides None."""
    members = [c for c in typing.get_args(hint) if c is not type(None)]
    return members[0] if typing.get_origin(hint) in (Union, UnionType) and len(members) == 1 else hint


def require_file(path: Path, kind: str) -> None:
    """Raises InputError unless `path` is a readable file that is not empty. `kind` says what was looked for."""
    if not path.exists():
        raise InputError(f"{path} does not exist: give the path of the {kind}")
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the path of one {kind} file")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    if empty:
        raise InputError(f"{path} is empty (0 bytes): give a complete {kind} file")


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """Reads the mapping in a YAML file. `what` says in errors what it is, such as "recipe". Raises InputError where there is none."""
    if not path.is_file():
        raise InputError(f"{what} {path} does not exist: give the path of a .yaml file, such as those in recipes/")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())[:300]}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give the path of a .yaml file") from None
    if not isinstance(data, dict):
        raise InputError(f"{path} must hold a mapping of keys to values, such as `batch_size: 16`")
    return data


def read_arrays(path: Path, remedy: str, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
    """Reads the named arrays of an .npz file, or all of them for None.

    `remedy` says what the user can do. It is part of the InputError that is raised for a file that is missing or damaged, or lacks a name.
    """
    with _readable(path, remedy), np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in (arrays.files if names is None else names)}


def read_array(path: Path, remedy: str, mmap_mode: Literal["c"] | None = None) -> NDArray[Any]:
    """Reads the array of an .npy file, or maps it where a mode is given. Raises InputError as `read_arrays` does."""
    with _readable(path, remedy):
        return np.lib.format.open_memmap(path, mode=mmap_mode) if mmap_mode else np.load(path, allow_pickle=False)


@contextmanager
def _readable(path: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # For a damaged file NumPy raises whatever its zip, zlib and header parsers raise.
        raise InputError(f"{path} cannot be read ({type(error).__name__}): {remedy}") from None


_UNWRITABLE = re.compile("[\\ud800-\\udfff]")


def printable(text: str) -> str:
    """Returns the text with escapes (a backslash, u and four digits) for what no file in UTF-8 can hold."""
    return _UNWRITABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def json_text(value: object) -> str:
    """Writes a value as JSON with indented lines. Names are escaped as in `printable`. Raises ValueError for NaN."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    return _UNWRITABLE.sub(lambda found: f"\\\\u{ord(found[0]):04x}", text) + "\n"  # JSON itself escapes the backslash.


@contextmanager
def text_path(path: Path) -> Iterator[Path]:
    """Yields a name in UTF-8 of an existing file or folder, for libraries that take no other. It is valid in the block.

    It is `path` itself where that is text. Else (some Unix file systems allow such names) it is the open file's name below /dev/fd.
    """
    if printable(str(path)) == str(path):
        yield path
        return
    opened = os.open(path, os.O_RDONLY)
    try:
        yield Path(f"/dev/fd/{opened}")
    finally:
        os.close(opened)
