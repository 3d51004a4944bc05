"""Files that are no released checkpoint, or a damaged or hostile one: each is refused in one sentence that says why."""

import bz2
import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from released_files import ReleasedFiles, random_model, released_states, small_config, write, write_small
from safetensors.torch import save_file
from torch import nn
from torch.serialization import MAGIC_NUMBER, PROTOCOL_VERSION

import dagan
from dagan.errors import InputError
from dagan.weights import save_model
from dagan.weights.convert import read_checkpoint, read_released, released_files
from dagan.weights.files import read_file, write_file

States = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> ReleasedFiles:
    """A sound RGB-only checkpoint."""
    return write_small(tmp_path_factory.mktemp("whole"), use_depth=False)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> ReleasedFiles:
    """A sound checkpoint with its depth network."""
    return write_small(tmp_path_factory.mktemp("deep"))


@pytest.fixture
def states(whole: ReleasedFiles) -> States:
    return {part: dict(state) for part, state in whole.states.items()}


def refusal(checkpoint: Path, depth_dir: Path | None = None, **how: Any) -> str:
    """The one sentence; it names the file."""
    with pytest.raises(InputError) as caught:
        read_released(checkpoint, depth_dir, image_size=64, **how)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    assert str(checkpoint) in message or str(depth_dir) in message
    return message


class Command:
    """Touches the disk when it is unpickled."""

    marker = ""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.marker,)


class Foreign:
    """A class of another program."""


def rezipped(content: bytes, compression: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return out.getvalue()


def zipped(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, content)
    return out.getvalue()


def tarred(content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo("model.pth")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def flipped(content: bytes) -> bytes:
    """One bit of a tensor is wrong, which torch's own reader does not notice."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    place = largest.header_offset + 1000
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def saved(value: Any, **how: Any) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, **how)
    return out.getvalue()


def huge_storage() -> bytes:
    """The older kind of file, which says that 2^62 bytes follow."""

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> object:
            return ("storage", torch.FloatStorage, "0", "cpu", 2**60, None) if isinstance(value, Storage) else None

    class Huge:
        def __reduce__(self) -> tuple[Any, ...]:
            return torch._utils._rebuild_tensor_v2, (Storage(), 0, (2**60,), (1,), False, OrderedDict())

    out = io.BytesIO()
    for value in (MAGIC_NUMBER, PROTOCOL_VERSION, {"little_endian": True, "protocol_version": 1001, "type_sizes": {}}):
        pickle.dump(value, out, protocol=2)
    Pickler(out, protocol=2).dump({"generator": Huge()})
    pickle.dump(["0"], out, protocol=2)
    out.write(struct.pack("<q", 2**60))
    return out.getvalue()


def older(value: Any) -> bytes:
    return saved(value, _use_new_zipfile_serialization=False)


FILES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda b: b"", "is empty"),
    "text": (lambda b: b"hello " * 100, "is damaged, or no checkpoint"),
    "noise": (lambda b: bytes(np.random.default_rng(0).integers(0, 256, 4000, np.uint8)), "is damaged, or no checkpoint"),
    "web page": (lambda b: b"<!DOCTYPE html><html></html>", "a web page saved in place of the file"),
    "large file pointer": (lambda b: b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
    "truncated": (lambda b: b[: len(b) // 2], "is truncated or damaged"),
    "truncated by a little": (lambda b: b[:-10], "is truncated or damaged"),
    "start missing": (lambda b: b[500:], "is damaged, or no checkpoint"),
    "bit flipped": (flipped, r"is damaged \(the checksum of \S+ is wrong\)"),
    "gzip": (gzip.compress, "compressed with gzip: unpack"),
    "bzip2": (lambda b: bz2.compress(b[:1000]), "compressed with bzip2: unpack"),
    "tar": (tarred, "a tar archive"),
    "renamed zip": (lambda b: zipped("model.pth.tar", b), "a zip archive that is no checkpoint"),
    "zip of a folder": (lambda b: zipped("weights/model.pth.tar", b), "a zip archive that is no checkpoint"),
    "empty zip": (lambda b: b"PK\x05\x06" + b"\0" * 18, "a zip archive that is no checkpoint"),
    "compressed zip": (lambda b: rezipped(b, zipfile.ZIP_DEFLATED), "repacked with compression"),
    "zip with a broken pickle": (lambda b: zipped("archive/data.pkl", b"\x80\x02}q\x00"), "damaged"),
    "huge header": (lambda b: (2**62).to_bytes(8, "little") + b"{}" * 100, "is damaged, or no checkpoint"),
    "huge storage": (lambda b: huge_storage(), "asks for more memory than there is"),
    "numpy array": (lambda b: b"\x93NUMPY" + b"\0" * 100, "a numpy array"),
    "a list": (lambda b: saved([torch.zeros(3)]), "holds a list"),
    "a tensor": (lambda b: saved(torch.zeros(3)), "holds a Tensor"),
    "older, truncated": (lambda b: older({"a": torch.zeros(9999)})[:20000], "is damaged, or no checkpoint"),
    "one state dict": (lambda b: saved({"first.conv.weight": torch.zeros(3)}), r"no entry kp_detector \(it has first\.conv\.weight\)"),
    "half the networks": (lambda b: saved({"kp_detector": {}, "epoch": 3}), r"no entry generator \(it has kp_detector, epoch\)"),
    "empty networks": (lambda b: saved({"kp_detector": {}, "generator": {}}), "entry kp_detector of .* has no predictor"),
    "a module": (lambda b: saved(nn.Linear(2, 2)), r"it asks to import torch\.nn\.modules\.linear\.Linear\) and could run code: refused"),
    "a foreign class": (lambda b: saved({"generator": Foreign()}), r"it asks to import \S*Foreign\) and could run code: refused"),
    "numpy arrays": (lambda b: saved({"generator": {"a": np.zeros(3)}}), "it asks to import numpy.* and could run code: refused"),
    "no mapping": (lambda b: saved({"kp_detector": [1], "generator": {}}), "entry kp_detector of .* is no state dict"),
}


@pytest.mark.parametrize("kind", FILES)
def test_damaged_and_foreign_files(kind: str, whole: ReleasedFiles, tmp_path: Path) -> None:
    damage, says = FILES[kind]
    path = tmp_path / "model.pth.tar"
    path.write_bytes(damage(whole.checkpoint.read_bytes()))
    with pytest.raises(InputError, match=says):
        read_released(path)
    refusal(path)


@pytest.mark.parametrize("how", ["zip", "older", "pickle 2", "pickle 4"])
def test_code_is_refused_and_not_run(how: str, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    Command.marker = str(marker)
    path = tmp_path / "model.pth.tar"
    content = {"generator": {"a": torch.zeros(2)}, "extra": Command()}
    if how.startswith("pickle"):
        path.write_bytes(pickle.dumps(Command(), protocol=int(how[-1])))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    message = refusal(path)
    assert "could run code: refused" in message
    assert ("mkdir" in message) == (how != "pickle 4")  # whose instructions are not even read
    assert not marker.exists()
    if how == "zip":  # the file is a real attack: reading it without care runs it
        torch.load(path, weights_only=False)
        assert marker.exists()


def test_scripted_modules_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pth.tar", "w") as archive:
        for name in ("model/data.pkl", "model/constants.pkl", "model/code/__torch__.py"):
            archive.writestr(name, b"")
    assert "a TorchScript program, which is code" in refusal(tmp_path / "model.pth.tar")


def test_absent_files_and_folders(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "model.pth.tar")
    assert "is a folder" in refusal(tmp_path)


def test_model_files_are_told_apart(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3)}, tmp_path / "m.safetensors")
    assert "a safetensors file, not a released checkpoint" in refusal(tmp_path / "m.safetensors")


def remove(part: str, key: str) -> Callable[[States], object]:
    return lambda states: states[part].pop(key)


def put(part: str, key: str, value: Any) -> Callable[[States], object]:
    return lambda states: states[part].__setitem__(key, value)


MASK = "dense_motion_network.mask"
TENSORS: dict[str, tuple[Callable[[States], object], str]] = {
    "missing": (remove("generator", "final.bias"), r"entry generator of .* 1 missing: final\.bias"),
    "extra": (put("kp_detector", "more.weight", torch.zeros(3)), r"entry kp_detector of .* 1 unexpected: more\.weight"),
    "shape": (put("kp_detector", "kp.bias", torch.zeros(7)), r"1 misshapen: kp\.bias is \(7,\), not \(4,\)"),
    "no keypoints": (remove("kp_detector", "kp.weight"), r"entry kp_detector of .* has no kp\.weight"),
    "no blur": (remove("kp_detector", "down.weight"), r"entry kp_detector of .* has no down\.weight"),
    "another blur": (put("kp_detector", "down.weight", torch.full((3, 1, 13, 13), 1 / 169)), r"down\.weight is not the Gaussian"),
    "blur of another size": (put("generator", "dense_motion_network.down.weight", torch.ones(3, 1, 5, 5)), "is not the Gaussian"),
    "odd blur": (put("kp_detector", "down.weight", torch.ones(3, 1, 7, 7)), r"down\.weight is 7 x 7: known blur kernels"),
    "vector for a kernel": (put("kp_detector", "kp.weight", torch.zeros(4)), r"kp\.weight has the shape \(4,\), not that of a convolution"),
    "no dimensions": (put("kp_detector", "kp.weight", torch.tensor(1.0)), r"kp\.weight has the shape \(\)"),
    "no values": (put("generator", "first.conv.weight", torch.zeros(0, 3, 7, 7)), r"first\.conv\.weight has the shape \(0, 3, 7, 7\)"),
    "not finite": (put("generator", "final.bias", torch.tensor([0.0, float("nan"), 0.0])), r"final\.bias holds values that are not finite"),
    "whole numbers": (put("generator", "final.bias", torch.zeros(3, dtype=torch.int64)), r"1 mistyped: final\.bias is torch\.int64"),
    "sparse": (put("generator", "final.bias", torch.zeros(3).to_sparse()), r"final\.bias is sparse"),
    "nested": (put("generator", "final", {"bias": torch.zeros(3)}), "generator of .*: final is a dict, not a tensor"),
    "key of no text": (lambda states: states["generator"].__setitem__(3, torch.zeros(3)), "is no state dict"),  # type: ignore[index]
    "both decoders": (put("generator", "decoder.fc.weight", torch.zeros(32, 16, 3, 3)), "entry generator of .* missing: decoder"),
    "no generator layer": (remove("generator", "down_blocks.1.conv.weight"), r"generator of .* has no down_blocks\.1\.conv\.weight"),
    "narrow": (put("generator", "first.conv.weight", torch.zeros(4, 3, 7, 7)), "generator of .*: generator width is 4: must be at least 8"),
    "vast": (put("generator", "final.weight", torch.zeros(1).expand(10**6, 10**6)), r"final\.weight claims \(1000000, 1000000\) but"),
    "wide": (put("generator", "first.conv.weight", torch.zeros(4000, 1, 1, 1)), r"not \(4000, 4000, 3, 3\)"),
    "depth keypoints, RGB generator": (
        put("kp_detector", "predictor.encoder.down_blocks.0.conv.weight", torch.zeros(16, 4, 3, 3)),
        "takes 4 channels, but the generator is one without depth",
    ),
    "RGB keypoints, depth generator": (put("generator", "AttnModule.gamma", torch.zeros(1)), "takes 3 channels, but .* with depth"),
}  # fmt: skip


@pytest.mark.parametrize("kind", TENSORS)
def test_wrong_tensors_name_their_keys(kind: str, states: States, tmp_path: Path) -> None:
    damage, says = TENSORS[kind]
    damage(states)
    path = write(tmp_path, states).checkpoint
    with pytest.raises(InputError, match=says):
        read_released(path, image_size=64)


def test_another_number_of_keypoints_names_the_keys(states: States, tmp_path: Path) -> None:
    states["generator"] = released_states(random_model(small_config(use_depth=False, keypoints=6)))["generator"]
    message = refusal(write(tmp_path, states).checkpoint)
    assert "entry generator of " in message
    assert f"{MASK}.bias is (7,), not (5,)" in message
    assert f"{MASK}.weight is (7, 36, 7, 7), not (5, 28, 7, 7)" in message


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda states: states.pop("discriminator"), "no entry discriminator .*: leave out --with-discriminator"),
        (remove("discriminator", "discs.1.conv.bias"), r"entry discriminator of .* 1 missing: discs\.1\.conv\.bias"),
        (put("discriminator", "discs.0.conv.bias", torch.zeros(1)), r"1 unexpected: discs\.0\.conv\.bias"),
    ],
)
def test_discriminator_must_be_there_and_fit(damage: Callable[[States], object], says: str, states: States, tmp_path: Path) -> None:
    damage(states)
    path = write(tmp_path, states).checkpoint
    assert read_released(path, image_size=64).config.image_size == 64  # without, nobody asks
    with pytest.raises(InputError, match=says):
        read_released(path, image_size=64, with_discriminator=True)


def test_depth_folder_must_be_given_where_it_belongs(whole: ReleasedFiles, deep: ReleasedFiles, tmp_path: Path) -> None:
    assert "needs its depth network" in refusal(deep.checkpoint)
    assert "RGB-only" in refusal(whole.checkpoint, deep.depth_dir)
    assert "is no folder" in refusal(deep.checkpoint, deep.checkpoint)
    assert "encoder.pth does not exist" in refusal(deep.checkpoint, tmp_path)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (put("depth_encoder", "encoder.layer1.2.conv1.weight", torch.zeros(64, 64, 3, 3)), r"a ResNet with \(3, 2, 2, 2\) blocks of 2"),
        (put("depth_encoder", "encoder.conv1.weight", torch.zeros(64, 6, 7, 7)), r"encoder\.pth .*conv1\.weight is \(64, 6, 7, 7\)"),
        (lambda states: states.update(depth_encoder=states["depth_decoder"]), r"encoder\.pth has no encoder\.conv1\.weight"),
        (remove("depth_decoder", "decoder.13.conv.bias"), r"depth\.pth .* 1 missing: decoder\.13\.conv\.bias"),
        (put("depth_decoder", "decoder.0.conv.conv.weight", torch.zeros(16, 2048, 3, 3)), r"depth\.pth .*\(16, 2048, 3, 3\), not \(16, 5"),
    ],
    ids=["another ResNet", "pose network", "swapped", "missing", "of another ResNet"],
)  # fmt: skip
def test_wrong_depth_files_name_their_keys(damage: Callable[[States], object], says: str, deep: ReleasedFiles, tmp_path: Path) -> None:
    states = {part: dict(deep.states[part]) for part in ("depth_encoder", "depth_decoder")}
    damage(states)
    torch.save(states["depth_encoder"], tmp_path / "encoder.pth")
    torch.save(states["depth_decoder"], tmp_path / "depth.pth")
    with pytest.raises(InputError, match=says):
        read_released(deep.checkpoint, tmp_path, image_size=64)


def test_load_released_refuses_as_well(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        dagan.load_released(tmp_path / "model.pth.tar", device="cpu")


@pytest.mark.parametrize("note", [3, {"wrapped": 7}, {"values": {"generator": 1}}, {"more": 1}])
def test_a_damaged_note_is_refused_on_the_way_back(note: object, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_model(path, random_model(small_config(use_depth=False)))
    config, _, tensors = read_file(path)
    write_file(path, config, tensors, {"released": note})
    with pytest.raises(InputError, match=r"m\.safetensors"):
        released_files(path)


def test_a_model_file_that_does_not_fit_is_refused_on_the_way_back(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_model(path, random_model(small_config(use_depth=False)))
    config, _, tensors = read_file(path)
    del tensors["dense_motion.mask.bias"]
    write_file(path, config, tensors, {})
    with pytest.raises(InputError, match=r"1 missing: dense_motion\.mask\.bias"):
        released_files(path)


def test_plain_values_are_read(tmp_path: Path) -> None:
    """What is harmless stays readable."""
    content = {"a": [1, 2.5, "text", None, True, (3,)], "b": OrderedDict(c=torch.arange(3)), "d": nn.Parameter(torch.ones(2))}
    torch.save(content, tmp_path / "x.pth")
    read = read_checkpoint(tmp_path / "x.pth")
    assert json.dumps(read["a"]) == json.dumps(content["a"])
    assert torch.equal(read["b"]["c"], torch.arange(3))
