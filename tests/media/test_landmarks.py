"""The landmarker: its accuracy with the bundled networks, its logic with stand-ins."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from dagan.media import landmarks as module
from dagan.media.landmarks import BLENDSHAPE_NAMES, BLENDSHAPE_POINTS, CHIN, SIXTY_EIGHT, FaceLandmarker

# Positions in the astronaut picture that MediaPipe's own program gives with the same bundle.
REFERENCE = {
    33: (195.28, 100.58, 4.22), 133: (213.59, 103.62, 0.64), 362: (236.41, 104.92, 0.30), 263: (255.32, 103.79, 3.45),
    1: (223.53, 131.06, -22.87), 61: (202.28, 139.17, 7.57), 291: (244.49, 140.55, 7.13), 152: (221.43, 177.42, 9.64),
    10: (226.03, 72.24, -11.91), 234: (180.87, 109.88, 41.10), 454: (269.76, 114.44, 39.79),
    468: (203.47, 101.12, 0.06), 473: (246.03, 103.52, -0.12),
}  # fmt: skip


@pytest.fixture(scope="module")
def landmarker():
    return FaceLandmarker()


def test_landmarks_agree_with_the_reference(landmarker, astronaut):
    (face,) = landmarker.detect(astronaut)
    assert face.landmarks.shape == (478, 3)
    assert face.landmarks.dtype == np.float32
    expected = np.array(list(REFERENCE.values()))
    found = face.landmarks[list(REFERENCE)]
    assert np.abs(found[:, :2] - expected[:, :2]).max() < 2  # of a face 108 pixels high
    assert np.abs(found[:, :2] - expected[:, :2]).mean() < 0.8
    assert np.abs(found[:, 2] - expected[:, 2]).max() < 2
    assert face.score > 0.99
    assert face.box == pytest.approx((180, 70, 271, 179), abs=3)


def test_blendshapes_by_name(landmarker, astronaut):
    shapes = landmarker.detect(astronaut)[0].blendshapes()
    assert tuple(shapes) == BLENDSHAPE_NAMES
    assert shapes["mouthSmileLeft"] > 0.8
    assert shapes["mouthSmileRight"] > 0.8
    assert max(shapes["jawOpen"], shapes["eyeBlinkLeft"], shapes["mouthPucker"]) < 0.2


@pytest.mark.parametrize("degrees", [-40, 25, 40])
def test_leaning_heads(landmarker, astronaut, degrees):
    """Landmarks of the turned picture, turned back, are those of the upright one."""
    upright = landmarker.detect(astronaut)[0].landmarks
    turned = np.asarray(Image.fromarray(astronaut).rotate(degrees, Image.Resampling.BICUBIC, center=(226, 124), fillcolor=(120, 120, 120)))
    (face,) = landmarker.detect(turned)
    angle = np.radians(degrees)
    back = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    placed = (face.landmarks[:, :2] - (226, 124)) @ back.T + (226, 124)
    assert np.linalg.norm(placed - upright[:, :2], axis=1).mean() < 1.5
    assert np.abs(face.landmarks[:, 2] - upright[:, 2]).mean() < 2


def test_mirrored_picture_mirrors_the_sixty_eight(landmarker, astronaut):
    points = landmarker.detect(astronaut)[0].landmarks[list(SIXTY_EIGHT), :2]
    mirrored = landmarker.detect(astronaut[:, ::-1])[0].landmarks[list(SIXTY_EIGHT), :2]
    mirrored[:, 0] = 512 - mirrored[:, 0]
    swap = [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1), 45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    swap += [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
    assert np.linalg.norm(points - mirrored[swap], axis=1).mean() < 1.5


def test_tiny_face_in_a_large_picture(landmarker, astronaut):
    """42 pixels of 1080 lines: the detector sees it in a tile only."""
    scene = np.full((1080, 1920, 3), 110, np.uint8)
    scene[700:900, 1500:1700] = np.asarray(Image.fromarray(astronaut).resize((200, 200)))
    assert landmarker.detect(scene, thorough=False) == []
    (face,) = landmarker.detect(scene)
    expected = np.array(REFERENCE[1][:2]) * 200 / 512 + (1500, 700)
    assert np.abs(face.landmarks[1, :2] - expected).max() < 2


def test_several_faces_largest_first(landmarker, astronaut):
    scene = np.concatenate([np.asarray(Image.fromarray(astronaut).resize((360, 512))), astronaut], axis=1)
    scene[:, :360] = 110
    scene[100:460, :360] = np.asarray(Image.fromarray(astronaut).resize((360, 360)))
    faces = landmarker.detect(scene)
    assert len(faces) == 2
    assert faces[0].box[0] > 360 > faces[1].box[2]


def test_tracking_follows_and_gives_up(landmarker, astronaut):
    face = landmarker.detect(astronaut)[0]
    for shift in (6, 12, 18, 24):
        face = landmarker.track(np.roll(astronaut, shift, axis=1), face)
        assert abs(face.landmarks[1, 0] - REFERENCE[1][0] - shift) < 1.5
    jumped = landmarker.track(np.roll(astronaut, 200, axis=1), face)
    assert abs(jumped.landmarks[1, 0] - REFERENCE[1][0] - 200) < 2
    assert landmarker.track(np.full_like(astronaut, 90), jumped) is None


def test_nothing_where_nothing_is(landmarker, astronaut):
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    for image in (np.zeros((64, 64, 3), np.uint8), noise, astronaut[300:, :200], np.zeros((16, 16, 3), np.uint8)):
        assert landmarker.detect(image) == []


def test_tables():
    assert len(BLENDSHAPE_POINTS) == len(set(BLENDSHAPE_POINTS)) == 146
    assert len(BLENDSHAPE_NAMES) == len(set(BLENDSHAPE_NAMES)) == 52
    assert len(SIXTY_EIGHT) == len(set(SIXTY_EIGHT)) == 68
    assert SIXTY_EIGHT[8] == CHIN
    assert max(SIXTY_EIGHT + BLENDSHAPE_POINTS) < 478


# From here on the networks are stand-ins: they see white squares as faces.


def write_bundle(path):
    with zipfile.ZipFile(path, "w") as file:
        for part in ("face_detector.tflite", "face_landmarks_detector.tflite", "face_blendshapes.tflite"):
            file.writestr(part, part)
    return path


class StandIn:
    """Detector: the white square's box. Mesh: sure when the middle of the crop is white; landmarks span the white part."""

    calls: dict[str, int]

    def __init__(self, content, num_threads):
        self.kind = content.decode().removesuffix(".tflite")
        self.outputs = {"face_blendshapes": ["StatefulPartitionedCall:0"]}.get(self.kind, ["Identity", "Identity_1"])

    def run(self, values):
        StandIn.calls[self.kind] = StandIn.calls.get(self.kind, 0) + 1
        return getattr(self, self.kind)(values)

    def face_detector(self, values):
        raw, logits = np.zeros((1, 896, 16), np.float32), np.full((1, 896, 1), -50, np.float32)
        bright = values[0, ..., 0] > 0
        if bright.sum() >= 64:
            (top, bottom), (left, right) = ((np.flatnonzero(bright.any(axis=a))[[0, -1]]) for a in (1, 0))
            x, y, w, h = (left + right + 1) / 2, (top + bottom + 1) / 2, right + 1 - left, bottom + 1 - top
            raw[0, 0, :4] = x - 4, y - 4, w, h  # the first anchor lies at (4, 4)
            raw[0, 0, 4:] = np.array([[x - w / 4, y], [x + w / 4, y], [x, y], [x, y], [x, y], [x, y]]).ravel() - 4
            logits[0, 0] = 3
        return {"regressors": raw, "classificators": logits}

    def face_landmarks_detector(self, values):
        assert values.shape == (1, 256, 256, 3)
        assert values.max() <= 1
        bright = values[0, ..., 0] > 0.5
        sure = bright[120:136, 120:136].all()
        places = np.zeros((478, 3), np.float32)
        if bright.any():
            (top, bottom), (left, right) = ((np.flatnonzero(bright.any(axis=a))[[0, -1]]) for a in (1, 0))
            places[:] = (left + right + 1) / 2, (top + bottom + 1) / 2, 25.6
            places[33, :2], places[263, :2] = (left, (top + bottom + 1) / 2), (right + 1, (top + bottom + 1) / 2)
            places[10, 1], places[152, 1] = top, bottom + 1
        return {"Identity": places.reshape(1, 1, 1, 1434), "Identity_1": np.full((1, 1, 1, 1), 5 if sure else -5, np.float32)}

    def face_blendshapes(self, values):
        assert values.shape == (1, 146, 2)
        return {"StatefulPartitionedCall:0": np.linspace(0, 1, 52, dtype=np.float32)}


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "Network", StandIn)
    StandIn.calls = {}
    monkeypatch.setattr(module, "BUNDLE", write_bundle(tmp_path / "b.task"))
    return FaceLandmarker()


def scene(*squares, size=(240, 320)):
    image = np.zeros((*size, 3), np.uint8)
    for x, y, side in squares:
        image[y : y + side, x : x + side] = 255
    return image


def test_detection_then_two_looks_of_the_mesh(stand_in):
    (face,) = stand_in.detect(scene((100, 60, 80)))
    assert StandIn.calls == {"face_detector": 1, "face_landmarks_detector": 2}
    assert face.box == pytest.approx((100, 60, 180, 140), abs=2)
    assert face.landmarks[0, 2] == pytest.approx(25.6 / 256 * 120, rel=0.05)  # depth in the same scale as x
    assert face.score == pytest.approx(1 / (1 + np.exp(-5)))
    assert list(face.blendshapes().values())[-1] == pytest.approx(1)


def test_tracking_rests_the_detector_until_the_face_is_lost(stand_in):
    (face,) = stand_in.detect(scene((100, 60, 80)))
    StandIn.calls = {}
    moved = stand_in.track(scene((115, 60, 80)), face)
    assert StandIn.calls == {"face_landmarks_detector": 1}
    assert moved.box[0] == pytest.approx(115, abs=2)
    far = stand_in.track(scene((10, 150, 80)), moved)
    assert far.box == pytest.approx((10, 150, 90, 230), abs=2)
    assert StandIn.calls["face_detector"] >= 1
    assert stand_in.track(scene(), far) is None


def test_small_faces_are_looked_for_in_tiles(stand_in):
    image = scene((900, 500, 30), size=(720, 1280))
    assert stand_in.detect(image, thorough=False) == []
    (face,) = stand_in.detect(image)
    assert face.box == pytest.approx((900, 500, 930, 530), abs=2)


def test_what_the_mesh_denies_is_no_face(stand_in):
    hollow = scene((100, 60, 80))
    hollow[80:120, 120:160] = 0
    assert stand_in.detect(hollow, thorough=False) == []
