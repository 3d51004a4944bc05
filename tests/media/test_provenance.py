"""Outputs say by what they were made, in every format that can, and `dagan verify` finds it."""

from fractions import Fraction
from pathlib import Path

import av
import pytest
from PIL import Image

from certificates import write_chain
from dagan.errors import InputError
from dagan.media.animations import AnimationReader
from dagan.media.images import IMAGE_SUFFIXES, read_image, write_image
from dagan.media.provenance import COMPOSITE, MADE, SUFFIXES, Provenance, check_credentials, find_credentials, find_xmp, put_xmp, xmp_packet
from dagan.media.video import VideoWriter, open_video
from dagan.media.writer import VIDEO_SUFFIXES
from running_samples import moving_pictures

PICTURES = moving_pictures(4, 64, 48)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_chain(tmp_path_factory.mktemp("chain"))


def film(path: Path, provenance: Provenance | None, count: int = 4) -> Path:
    with VideoWriter(path, 64, 48, provenance=provenance) as writer:
        for i, picture in enumerate(PICTURES[:count]):
            writer.write(picture, Fraction(i, 25))
    return path


def written(folder: Path, kind: str, suffix: str, provenance: Provenance | None) -> Path:
    path = folder / f"{kind}{suffix}"
    if kind == "video":
        return film(path, provenance)
    write_image(path, PICTURES[0], provenance=provenance)
    return path


FORMATS = [("video", suffix) for suffix in VIDEO_SUFFIXES] + [("still", suffix) for suffix in IMAGE_SUFFIXES]


@pytest.mark.parametrize(("kind", "suffix"), FORMATS)
def test_marks_are_found_in_every_format(kind, suffix, tmp_path, command):
    path = written(tmp_path, kind, suffix, Provenance("some model & more"))
    status, printed, complaints = command("verify", path)
    assert complaints == ""
    if suffix == ".bmp":
        assert status == 1
        assert "BMP files cannot hold any" in printed
        assert "proves nothing" in printed
        return
    assert status == 0
    assert f"made by a trained model ({MADE}), by dagan " in printed
    if suffix not in SUFFIXES:
        assert "files cannot hold any" in printed


@pytest.mark.parametrize(("kind", "suffix"), FORMATS)
def test_marks_change_nothing_that_is_seen(kind, suffix, tmp_path):
    plain, marked = tmp_path / "plain", tmp_path / "marked"
    plain.mkdir()
    marked.mkdir()
    pair = [written(folder, kind, suffix, made) for folder, made in ((plain, None), (marked, Provenance("m")))]
    assert find_xmp(pair[0])[1] == []
    if kind == "still":
        assert (read_image(pair[0]) == read_image(pair[1])).all()
        with Image.open(pair[1]) as image:
            image.verify()
        return
    seen = []
    for path in pair:
        with open_video(path) as reader:
            seen.append([(frame.time, frame.image) for frame in reader])
            assert not reader.truncated
    assert [time for time, _ in seen[0]] == [time for time, _ in seen[1]]
    assert all((a == b).all() for (_, a), (_, b) in zip(*seen, strict=True))


@pytest.mark.parametrize("suffix", [suffix for suffix in SUFFIXES if suffix not in (".m4v", ".apng", ".jpeg", ".tiff")])
def test_signed_files_are_verified_and_changes_are_found(suffix, tmp_path, command, chain):
    kind = "video" if suffix in VIDEO_SUFFIXES else "still"
    path = written(tmp_path, kind, suffix, Provenance("m", composite=True, credentials=chain))
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]
    status, printed, _ = command("verify", path)
    assert status == 0
    assert "signed by Test Signer of Testers (nobody here vouches for that name), with dagan" in printed
    assert COMPOSITE in printed
    assert "as it was signed" in printed
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    position = next(i for i in range(len(data) // 3, len(data)) if data[i] not in (0, 255))
    data[position] ^= 1
    path.write_bytes(data)
    status, printed, _ = command("verify", path)
    assert status == 3
    assert "do not rely" in printed


def test_a_single_frame_is_marked_too(tmp_path):
    for suffix in (".webp", ".gif", ".png"):
        path = film(tmp_path / f"one{suffix}", Provenance("m"), 1)
        assert [found.source_type for found in find_xmp(path)[1]] == [MADE]
        assert len(list(AnimationReader(path))) == 1


def test_lossy_webp_in_its_simple_form_becomes_extended(tmp_path):
    for i, options in enumerate(({"quality": 50}, {"lossless": True})):
        path = tmp_path / f"{i}.webp"
        Image.fromarray(PICTURES[0]).save(path, **options)
        before = read_image(path)
        put_xmp(path, xmp_packet(Provenance("m")))
        assert (read_image(path) == before).all()
        with Image.open(path) as image:
            assert b"trainedAlgorithmicMedia" in image.info["xmp"]


def test_other_programs_find_the_marks(tmp_path):
    for suffix in (".png", ".jpg", ".webp", ".tif"):
        path = written(tmp_path, "still", suffix, Provenance("m"))
        with Image.open(path) as image:
            image.load()
            assert b"DigitalSourceType" in (image.info.get("xmp") or image.info["XML:com.adobe.xmp"].encode())
    for suffix in (".mp4", ".mov", ".mkv", ".webm"):
        with av.open(str(written(tmp_path, "video", suffix, Provenance("m")))) as container:
            tags = {key.lower(): value for key, value in container.metadata.items()}
        assert "This is synthetic: made by a trained model" in tags["comment"]


@pytest.mark.parametrize(
    ("content", "words"), [(None, "does not exist"), (b"", "is empty"), (b"Dear diary, this is no film.\n" * 9, "no picture or video")]
)
def test_what_is_no_picture_gets_one_sentence(content, words, tmp_path, command):
    path = tmp_path / "film.mp4"
    if content is not None:
        path.write_bytes(content)
    status, printed, complaint = command("verify", path)
    assert (status, printed, complaint.count("\n")) == (2, "", 1)
    assert words in complaint
    status, _, complaint = command("verify", tmp_path)
    assert (status, complaint.count("\n")) == (2, 1)


def test_certificates_that_cannot_sign_are_refused(tmp_path, chain):
    certificate, key = chain
    _, other_key = write_chain(tmp_path)
    check_credentials(chain, tmp_path / "out.mp4")
    for files, output, words in (
        ((certificate, key), "out.mkv", "cannot hold Content Credentials"),
        ((certificate, certificate), "out.mp4", "holds no private key"),
        ((tmp_path / "none.pem", key), "out.mp4", "does not exist"),
        ((key, key), "out.mp4", "cannot sign"),
        ((certificate, other_key), "out.mp4", "cannot sign"),
    ):
        with pytest.raises(InputError, match=words):
            check_credentials(files, tmp_path / output)
    assert find_credentials(film(tmp_path / "unsigned.mp4", Provenance("m"))) is None


def test_a_packet_without_end_is_read_as_far_as_it_goes(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(PICTURES[0]).save(path)
    with path.open("ab") as file:
        file.write(b"<x:xmpmeta " + b"\xff" * 300 + b" digitalsourcetype/digitalCapture CreatorTool='A\x1b[31m camera'")
    (found,) = find_xmp(path)[1]
    assert (found.source_type, found.synthetic, found.tool) == ("digitalCapture", False, "A[31m camera")
