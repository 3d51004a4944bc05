"""Results in the photo's own detail, with still borders and backgrounds, and cut out."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import binary_dilation

from dagan.animate.animator import Animator
from dagan.animate.finish import Finish, Finisher, Matte, find_matte, parse_size
from dagan.animate.layout import PasteBack
from dagan.cli.animate import MOTION, PORTRAIT
from dagan.engine.base import Drawing
from dagan.engine.open import open_engine
from dagan.errors import InputError
from dagan.evaluate.distances import LPIPS
from dagan.geometry import coordinate_grid
from dagan.media.framing import FaceFinder, Framing, crop, frame_still, inner_sides
from dagan.media.images import read_image
from dagan.motion.file import read_motion
from dagan.synthetic.clip import HeadRenderer
from dagan.synthetic.scene import draw_scene
from running_samples import decoded, moving_pictures

SMALL, LARGE = 64, 128


@pytest.fixture(scope="module")
def engine():
    return open_engine("lite-256", device="cpu", precision="float32")


@pytest.fixture(scope="module")
def finder():
    return FaceFinder()


@pytest.fixture(scope="module")
def photo():
    return read_image(PORTRAIT)


def textured(side: int = LARGE, seed: int = 0) -> np.ndarray:
    """Broad waves with fine noise on them, which a picture of half the side cannot hold."""
    noise = np.random.default_rng(seed).integers(-30, 30, (side, side, 3))
    return np.clip(moving_pictures(1, side, side)[0].astype(int) // 2 + 64 + noise, 0, 255).astype(np.uint8)


def shrunk(picture: np.ndarray) -> torch.Tensor:
    return F.avg_pool2d(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255, 2)


def drawing(images: torch.Tensor, shift: float = 0.0) -> Drawing:
    grid = coordinate_grid(16, 16)[None].expand(len(images), -1, -1, -1) + torch.tensor([shift, 0.0])
    return Drawing(images, grid)


def finisher(picture: np.ndarray, rest: torch.Tensor, matte=None, framing: Framing | None = None, **options) -> Finisher:
    """A finisher for an engine that draws `rest` at rest."""
    engine = SimpleNamespace(align_corners=True, size=rest.shape[-1], draw=lambda source, keypoints: drawing(rest))
    framing = framing or Framing(len(picture), len(picture), len(picture))  # It lies in the middle of a photo twice as large.
    return Finisher(engine, SimpleNamespace(keypoints=None), picture, Finish(**options), framing, (2 * len(picture),) * 2, matte)


def test_detail_of_the_source_comes_back_where_it_was_only_moved():
    picture = textured()
    low = shrunk(picture)
    (still,) = finisher(picture, low, size=LARGE)(drawing(low))
    assert np.abs(still.astype(int) - picture).max() <= 1
    moved = finisher(picture, low, size=LARGE)
    step = 8 * 2 / (LARGE - 1)  # Eight pixels of the large picture, which are four of the small one.
    (result,) = moved(drawing(torch.roll(low, -4, 3), step))
    assert np.abs(result[:, 16:-24].astype(int) - np.roll(picture, -8, 1)[:, 16:-24]).mean() < 1


def test_what_the_model_drew_anew_is_kept():
    picture = textured()
    low = shrunk(picture)
    drawn = low.clone()
    drawn[:, :, 20:44, 20:44] = torch.tensor([0.9, 0.1, 0.2])[:, None, None]
    (result,) = finisher(picture, low, size=LARGE)(drawing(drawn))
    assert np.abs(result[48:80, 48:80] / 255 - [0.9, 0.1, 0.2]).max() < 0.02
    assert np.abs(result[:30].astype(int) - picture[:30]).max() <= 1


def test_held_borders_are_the_photos_whatever_is_drawn():
    picture = textured()
    wild = drawing(torch.rand(2, 3, SMALL, SMALL), 0.3)
    results = finisher(picture, shrunk(picture), size=LARGE, hold_border=True)(wild)
    gap = np.abs(results.astype(int) - picture).max((0, 3))
    assert max(gap[0].max(), gap[-1].max(), gap[:, 0].max(), gap[:, -1].max()) == 0
    assert gap[32:-32, 32:-32].mean() > 50
    # Where the square ends with the photo there is no seam, and motion need not fade.
    at_the_bottom = finisher(picture, shrunk(picture), framing=Framing(128, 256 - 64, 128), size=LARGE, hold_border=True)(wild)
    assert np.abs(at_the_bottom.astype(int) - picture)[:, -1].mean() > 20
    assert np.abs(at_the_bottom.astype(int) - picture)[:, 0].max() == 0


def test_turned_squares_know_their_sides():
    left_edge = (50, 100, 100)  # Centre and side of a square that touches the left edge of a picture 300 x 200.
    for turns, inside in enumerate([(0, 1, 1, 1), (1, 1, 1, 0), (1, 1, 0, 1), (1, 0, 1, 1)]):
        assert inner_sides(Framing(*left_edge, turns * np.pi / 2), 300, 200) == tuple(map(bool, inside))
    assert inner_sides(Framing(*left_edge, 0.5), 300, 200) == (True,) * 4


def test_behind_the_head_nothing_moves():
    picture = textured()
    matte = np.zeros((SMALL, SMALL), np.float32)
    matte[24:40, 24:40] = 1
    wild = drawing(torch.rand(3, 3, SMALL, SMALL), 0.2)
    results = finisher(picture, shrunk(picture), Matte(matte, SMALL), size=LARGE, still_background=True)(wild)
    gap = np.abs(results.astype(int) - picture).max((0, 3))
    assert gap[:32].max() <= 1
    assert gap[56:72, 56:72].mean() > 30
    assert gap[48:80, 36:44].mean() > 30  # The moved head covers this place, where the photo shows none.
    assert gap[48:80, :16].max() <= 1


def test_what_stays_still_keeps_a_larger_distance_below_the_chin():
    """Collars look like walls, and rims of them that were taken for walls stood there twice."""
    picture = textured(256)
    rest = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
    matte = np.zeros((256, 256), np.float32)
    matte[:, 96:160] = 1
    results = finisher(picture, rest, Matte(matte, 128), still_background=True)(drawing(torch.rand(3, 3, 256, 256)))
    gap = np.abs(results.astype(int) - picture).max((0, 3))
    assert gap[:, 160].min() > 10
    assert gap[:110, 166:].max() == 0
    assert gap[128:, 166].min() > 10
    assert gap[:, 180:].max() == 0


def test_cutouts_follow_the_head():
    picture = textured()
    matte = np.zeros((SMALL, SMALL), np.float32)
    matte[24:40, 24:40] = 1
    moved = drawing(shrunk(picture), 16 * 2 / (LARGE - 1))
    (result,) = finisher(picture, shrunk(picture), Matte(matte, SMALL), size=LARGE, cutout=True)(moved)
    assert result.shape == (LARGE, LARGE, 4)
    alpha = result[..., 3].astype(int)
    assert alpha[64].argmax() in range(31, 35)  # It was at 48 and looks sixteen to the right.
    assert (alpha[52:76, 36:60] == 255).all()
    assert alpha[:44].max() == 0


def test_a_tint_of_the_model_is_taken_away():
    picture = textured()
    low = shrunk(picture)
    tinted = low * 0.9 + torch.tensor([0.05, 0.0, -0.03]).view(1, 3, 1, 1)
    (result,) = finisher(picture, tinted, size=LARGE)(drawing(tinted))
    assert np.abs(result.astype(int) - picture).mean() < 1


def test_sizes_are_read_and_checked():
    assert [parse_size(text) for text in (None, "photo", "512")] == [None, "photo", 512]
    for wrong in ("big", "511", "-2", "5.5", ""):
        with pytest.raises(InputError, match="even number of pixels"):
            parse_size(wrong)
    framing = Framing(0, 0, 700.6)
    assert [Finish(size=size).side(framing, 256) for size in (None, "photo", 1024)] == [256, 700, 1024]
    assert Finish(size="photo", longest=400).side(framing, 256) == 400
    assert Finish(size="photo").side(Framing(0, 0, 90), 256) == 256
    for wrong in (128, 5000):
        with pytest.raises(InputError, match="must be from 256"):
            Finish(size=wrong).side(framing, 256)


def test_the_command_takes_sizes(files, run, tmp_path):
    assert run("--size", "128")[0] == 0
    assert decoded(tmp_path / "out.mp4").shape[1:] == (128, 128, 3)
    assert run("--size", "128", "--side-by-side", "--overwrite")[0] == 0
    assert decoded(tmp_path / "out.mp4").shape[1:] == (128, 512, 3)
    for size, words in (("32", "must be from 64"), ("huge", "even number of pixels")):
        status, _, complaint = run("--size", size, output="no.mp4")
        assert status == 2
        assert words in complaint
    assert not (tmp_path / "no.mp4").exists()
    status, _, complaint = run("--still-background", output="no.mp4")
    assert status == 2
    assert "no face found in the source picture" in complaint


@pytest.mark.parametrize("larger", [False, True])
def test_pasted_back_into_the_bundled_portrait_nothing_changes_at_the_border(engine, finder, photo, larger):
    if larger:
        photo = np.asarray(Image.fromarray(photo).resize((1024, 1024), Image.Resampling.LANCZOS))
    motion, framing = read_motion(MOTION), frame_still(photo, finder)
    animator = Animator(engine, face_finder=finder, finish=Finish(size="photo", hold_border=True))
    animator.set_source(photo, framing=framing)
    animator.set_reference(motion.keypoints(slice(motion.reference, motion.reference + 1)))
    left, top, right, bottom = (round(x) for x in framing.bounds)
    for index in (60, 120, 180):
        (frame,) = PasteBack(photo, framing).compose(animator.drive(motion.keypoints(slice(index, index + 1))), ())
        gap = np.abs(frame.astype(int) - photo).max(2)
        ring = np.zeros(gap.shape, bool)
        ring[top - 3 : bottom + 3, left - 3 : right + 3] = True
        ring[top + 3 : bottom - 3, left + 3 : right - 3] = False
        assert gap[ring].max() < 2
        assert gap[~ring].max() > 40


def test_behind_a_synthetic_head_less_swims(engine, finder):
    """Labels of the synthetic head say exactly which pixels never show it. Those below the chin are judged apart."""
    scene = draw_scene(7, 4, 256, 24, 25)
    views = [HeadRenderer(scene).frame(index) for index in (0, 12, 23)]
    behind = ~binary_dilation(np.any([view.label != 0 for view in views], axis=0), iterations=4)
    chin = max(int(face.landmarks[:, 1].max()) for view in views for face in finder.landmarker.detect(view.image))
    deviations = []
    for still in (False, True):
        animator = Animator(engine, face_finder=finder, finish=Finish(still_background=still))
        animator.set_source(views[0].image)
        results = animator.animate_batch([view.image for view in views]) @ np.array([0.299, 0.587, 0.114])
        found = results.std(axis=0)
        deviations.append((found[:chin][behind[:chin]].mean(), found[chin:][behind[chin:]].mean()))
    (above, below), (above_held, below_held) = deviations
    assert above_held < 0.3 * above
    assert below_held < 0.75 * below  # What stays still keeps a larger distance from the body.


def test_the_matte_tells_a_head_from_what_is_behind(engine, finder, photo):
    face = crop(photo, frame_still(photo, finder), 256)
    (seen,) = finder.landmarker.detect(face)
    for disparity in (engine.disparity([face])[0], None):
        matte = find_matte(face, disparity, seen).person
        x, y = seen.landmarks[:, :2].mean(0).astype(int)
        assert matte[y, x] > 0.99
        assert matte[250, 128] > 0.99  # the neck
        assert matte[60:120, :20].max() < 0.05
        assert matte[60:120, -20:].max() < 0.05


def test_without_a_face_there_is_no_matte():
    with pytest.raises(InputError, match="no face found"):
        find_matte(textured(256), None, None)


def test_larger_results_are_nearer_to_the_truth_than_enlarged_ones(engine, finder, photo):
    """The portrait with fine grain leans and shifts, so the true frames are known; LPIPS to them falls by much more than a tenth."""
    noise = np.random.default_rng(1).normal(0, 9, (512, 512, 1))
    still = np.clip(crop(photo, frame_still(photo, finder), 512) + noise, 0, 255).astype(np.uint8)
    truth = np.asarray(Image.fromarray(still).rotate(-3, Image.Resampling.BICUBIC, translate=(12, 4)))
    lpips, scores = LPIPS(), []
    for size in (None, 512):
        animator = Animator(engine, relative=False, face_finder=finder, finish=Finish(size=size))
        animator.set_source(still)
        result = Image.fromarray(animator.animate(truth)).resize((512, 512), Image.Resampling.BICUBIC)
        pair = [torch.from_numpy(np.array(x)[64:448, 64:448]).permute(2, 0, 1)[None] / 255 for x in (result, truth)]
        scores.append(float(lpips(*pair)))
    assert scores[1] < 0.9 * scores[0]


def test_ears_belong_to_the_matte_whatever_is_behind_them(engine, finder, photo):
    """A wall of the skin's colour behind the ears must not take them away from the head: they would stay where they were."""
    face = crop(photo, frame_still(photo, finder), 256)
    (seen,) = finder.landmarker.detect(face)
    x, y = np.mgrid[:256, :256][::-1]
    temples = seen.landmarks[[234, 454], :2]
    beside = np.abs(x - temples[:, 0].mean()) > 0.52 * np.ptp(temples[:, 0])
    skin = face[int(temples[0, 1]), int(temples[0, 0]) + 8]
    wall = np.where((beside & (y < temples[:, 1].mean() + 30))[..., None], skin, face)
    matte = find_matte(wall, engine.disparity([face])[0], seen).person
    for temple, outward in zip(temples, (-1, 1), strict=True):
        assert matte[int(temple[1]), int(temple[0] + 8 * outward)] > 0.99
    assert matte[60:120, :20].max() < 0.05
