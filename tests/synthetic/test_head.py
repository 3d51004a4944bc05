from dataclasses import replace

import numpy as np
import pytest
import torch

from dagan.data.truth import Label
from dagan.geometry import back_project, intrinsics, invert_intrinsics, project, sample
from dagan.synthetic.anatomy import COLUMNS, EYE_ROW, build_skull, draw_identity
from dagan.synthetic.clip import HeadRenderer, find_landmarks, locate
from dagan.synthetic.parts import Expression, build_face_mesh, deform
from dagan.synthetic.scene import HeadMotion, Scene, draw_motion, draw_scene, pose_at

SIZE = 96


@pytest.fixture(scope="module")
def scene() -> Scene:
    """A head that turns by 12 degrees between frame 0 and 1 with a straight face."""
    drawn = draw_scene(3, 1, SIZE, 2, 25.0)
    turns = np.radians([[0.0, -6, 0], [2, 6, 1]])
    lit = replace(drawn.light, colours=0 * drawn.light.colours, ground=drawn.light.sky + 0.3, sky=drawn.light.sky + 0.3, grain=0.0)
    return replace(drawn, motion=HeadMotion(turns, np.array([[0.0, 0, 0], [4, 2, 0]]), [Expression()] * 2), light=lit)


@pytest.mark.parametrize("seed", range(4))
def test_faces_have_the_order_of_a_face(seed: int) -> None:
    skull = build_skull(draw_identity(np.random.default_rng(seed)))
    profile = skull.position[:, COLUMNS // 2]  # y, z down the middle
    tip = profile[profile[:, 2].argmin()]
    assert skull.eye + 25 < tip[1] < skull.mouth - 10  # the nose's tip stands out farthest
    assert skull.eye < skull.nose < skull.mouth
    between = profile[(profile[:, 1] > skull.eye - 8) & (profile[:, 1] < skull.eye + 8)]
    assert between[:, 2].min() > tip[2] + 10  # the root of the nose lies deeper
    eye_line = skull.position[EYE_ROW]
    socket = eye_line[np.abs(eye_line[:, 0] - skull.eyeballs[1, 0]).argmin(), 2]
    assert socket > profile[EYE_ROW, 2] + 5


def test_identities_differ_in_shape() -> None:
    faces = np.stack([build_skull(draw_identity(np.random.default_rng(seed))).position for seed in range(6)])
    assert faces.std(0).mean() > 1.0  # mm
    assert faces.std(0).max() < 15.0


def test_lids_and_lips_open_and_close() -> None:
    person = draw_identity(np.random.default_rng(0))
    mesh = build_face_mesh(build_skull(person), person)
    lip = len(mesh.upper_edge) // 2

    def gaps(look: Expression) -> tuple[float, float]:
        points = deform(mesh, look)
        vertices, upper, lower = mesh.lids[0]
        lids = points[vertices[lower.argmax()], 1] - points[vertices[upper.argmax()], 1]
        return float(lids), float(points[mesh.lower_edge[lip], 1] - points[mesh.upper_edge[lip], 1])

    eyes, mouth = gaps(Expression())
    assert 7 < eyes < 12
    assert mouth == 0
    assert gaps(Expression(blink=1))[0] == pytest.approx(0, abs=1.0)
    assert gaps(Expression(jaw=1))[1] > 15
    still = deform(mesh, Expression(jaw=1)) - deform(mesh, Expression())
    assert np.abs(still[mesh.rest[:, 1] < 30]).max() < 0.5  # the jaw moves nothing above the nose
    corners = [mesh.upper_edge[0], mesh.upper_edge[-1]]
    smile = (deform(mesh, Expression(smile=1)) - deform(mesh, Expression()))[corners]
    assert (smile[:, 1] < -3).all()
    assert smile[0, 0] < -3 < 3 < smile[1, 0]


def test_lids_lie_on_the_eyeball() -> None:
    person = draw_identity(np.random.default_rng(1))
    mesh = build_face_mesh(build_skull(person), person)
    points = deform(mesh, Expression(blink=1))
    vertices = mesh.lids[1][0]
    near = vertices[np.linalg.norm(points[vertices, :2] - mesh.eyeballs[1, :2], axis=1) < 7]
    distance = np.linalg.norm(points[near] - mesh.eyeballs[1], axis=1)
    assert distance.min() > 13.4
    assert distance.max() < 15.5


def test_depth_camera_and_pose_carry_one_frame_onto_the_other(scene: Scene) -> None:
    """With light that does not depend on direction, warping by the truth explains the picture of the head."""
    renderer = HeadRenderer(scene)
    first, second = renderer.frame(0), renderer.frame(1)
    camera = scene.camera
    focal = torch.full((1, 2), camera.focal / SIZE)
    principal = torch.tensor([[(camera.cx + 0.5) / SIZE, (camera.cy + 0.5) / SIZE]], dtype=torch.float32)
    matrix = intrinsics(focal, principal, (SIZE, SIZE))
    a, b = pose_at(scene, 0), pose_at(scene, 1)
    motion = torch.eye(4)
    motion[:3, :3] = torch.from_numpy(b.rotation @ a.rotation.T)
    motion[:3, 3] = torch.from_numpy(b.translation - b.rotation @ a.rotation.T @ a.translation)
    points = back_project(torch.from_numpy(first.depth)[None, None], invert_intrinsics(matrix))
    images = [torch.from_numpy(view.image).permute(2, 0, 1)[None].float() / 255 for view in (first, second)]
    warped = sample(images[1], project(points, matrix, motion[None]), align_corners=True)
    face = torch.from_numpy(first.label == Label.FACE)
    explained = (warped - images[0]).abs().mean(1)[0][face].median()
    still = (images[1] - images[0]).abs().mean(1)[0][face].median()
    assert explained < 0.35 * still


def test_landmarks_are_where_they_are_named(scene: Scene) -> None:
    view = HeadRenderer(scene).frame(0)
    marks = find_landmarks(scene)
    seen = locate(marks, scene, view)
    at = dict(zip(marks.names, seen.pixels, strict=True))
    assert len(marks.names) >= 20
    assert seen.visible.mean() > 0.8
    assert at["right_eye_outer"][0] < at["right_eye_inner"][0] < at["nose_root"][0] < at["left_eye_inner"][0] < at["left_eye_outer"][0]
    order = ["forehead", "nose_root", "nose_tip", "nose_base", "upper_lip_edge", "chin"]
    heights = [at[name][1] for name in order]
    assert heights == sorted(heights)
    depth = dict(zip(marks.names, seen.depth, strict=True))
    assert min(depth, key=depth.__getitem__) == "nose_tip"
    column, row = np.rint(at["nose_tip"]).astype(int)
    around = view.depth[row - 1 : row + 2, column - 1 : column + 2]  # the tip may lie on an edge
    assert around.min() == pytest.approx(depth["nose_tip"], abs=0.003)
    assert view.label[row - 1, column] == Label.FACE
    # Turned far to the side, half the face hides.
    away = replace(scene, motion=replace(scene.motion, turns=np.radians([[0.0, 70, 0], [0, 70, 0]])))
    hidden = locate(marks, away, HeadRenderer(away).frame(0)).visible
    assert hidden[marks.names.index("left_eye_outer")] != hidden[marks.names.index("right_eye_outer")]


def test_same_seed_same_picture_whatever_comes_with_it() -> None:
    first, again = (HeadRenderer(draw_scene(5, 2, 48, 3, 25.0)).frame(1) for _ in range(2))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.depth, again.depth)
    assert np.abs(first.image.astype(int) - HeadRenderer(draw_scene(5, 3, 48, 3, 25.0)).frame(1).image).mean() > 5
    assert np.abs(first.image.astype(int) - HeadRenderer(draw_scene(6, 2, 48, 3, 25.0)).frame(1).image).mean() > 5


def test_people_talk_blink_and_turn_smoothly() -> None:
    motion = draw_motion(500, 25.0, np.random.default_rng(0))
    jaw, blink = (np.array([getattr(look, name) for look in motion.expressions]) for name in ("jaw", "blink"))
    assert 0 <= jaw.min() < 0.05 < 0.5 < jaw.max() <= 1.0
    peaks = ((jaw[1:-1] > jaw[:-2]) & (jaw[1:-1] >= jaw[2:]) & (jaw[1:-1] > 0.1)).sum() / 20
    assert 1.5 < peaks < 6  # openings a second
    assert 3 <= (np.diff((blink > 0.5).astype(int)) == 1).sum() <= 12  # in 20 seconds
    turned = np.degrees(motion.turns)
    assert np.ptp(turned[:, 1]) > 10
    assert np.abs(np.diff(turned, axis=0)).max() < 6
