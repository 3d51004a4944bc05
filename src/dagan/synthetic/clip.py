"""The job that draws synthetic clips and writes them with ground truth, one after the other or several at once.

Clip i of a seed is the same however many are asked for. So a folder can grow, and an interrupted run goes on where it stopped.

The frames of a scene are drawn with their ground truth, including named points of the face. The picture is shaded at SAMPLES x SAMPLES
samples a pixel, which are averaged. Depth and labels are exact, at the centres of pixels. Named points are found once on the skin's mesh
and followed through a clip. In their names "right" and "left" are the person's.

Legend: S side of the image, V vertices, n samples.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dagan.data.truth import ClipTruth, Label, recipe_of, write_truth
from dagan.errors import InputError
from dagan.media.video import VideoWriter
from dagan.processes import in_processes
from dagan.progress import Progress, silent
from dagan.synthetic.anatomy import COLUMNS, EYE_ROW, MOUTH_ROW, THROAT_ROW
from dagan.synthetic.mesh import Hits, Ints, normal_sums, rasterise, unit, vertex_normals
from dagan.synthetic.scene import SAMPLES, Pose, Scene, draw_scene, points_at, pose_at, skin_count
from dagan.synthetic.texture import GAMMA

Floats = NDArray[np.float32]
_CODES = 4096
# This table turns linear light in [0, 1] into 8 bits. Computing a power for each sample would cost more than the shading.
_TO_BYTES = (255 * (np.arange(_CODES) / (_CODES - 1)) ** (1 / GAMMA)).astype(np.float32)

# Light reaches this far past the edge of shadow in red, green and blue, because it scatters in skin.
_SCATTER = np.array([0.22, 0.12, 0.10], np.float32)


@dataclass(frozen=True)
class RenderedView:
    """One frame with its ground truth."""

    image: NDArray[np.uint8]
    """S x S x 3."""
    depth: Floats
    """S x S metres along z."""
    label: NDArray[np.uint8]
    """S x S of Label."""
    points: Floats
    """V x 3 vertices in camera coordinates."""
    pose: Pose
    """The head's pose."""


class HeadRenderer:
    """Draws frames of one scene."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._sums = normal_sums(scene.faces, len(scene.uv))

    def frame(self, index: int) -> RenderedView:
        """Draws frame `index` with its ground truth. The result is the same whenever it is asked for."""
        scene = self.scene
        points = points_at(scene, index)
        fine = rasterise(points, scene.faces, scene.camera.at(SAMPLES), (SAMPLES * scene.size,) * 2)
        centres = rasterise(points, scene.faces, scene.camera.at(1), (scene.size,) * 2)
        depth = np.full(scene.size**2, scene.wall_depth, np.float32)
        label = np.full(scene.size**2, Label.BACKGROUND, np.uint8)
        depth[centres.sample], label[centres.sample] = centres.depth, scene.label[centres.face]
        shape = (scene.size, scene.size)
        image = self._develop(self._shade(points, fine), index)
        return RenderedView(image, depth.reshape(shape), label.reshape(shape), points, pose_at(scene, index))

    def _shade(self, points: Floats, hits: Hits) -> Floats:
        """Returns (SAMPLES S)^2 x 3 linear colours."""
        scene = self.scene
        light = self._lit(points)
        # One table holds u, v, light and highlight, so that each corner needs one look-up.
        table = np.column_stack([self._texel_places, light]).astype(np.float32)
        corners = scene.faces[hits.face].T
        mixed = table.take(corners[0], axis=0) * hits.weights[:, :1]
        for i in (1, 2):
            mixed += table.take(corners[i], axis=0) * hits.weights[:, i : i + 1]
        colour = self._look_up(mixed[:, :2], scene.tile_of[corners[0]]) * mixed[:, 2:5] + mixed[:, 5:8]
        wall = scene.wall.reshape(-1, 3).copy()
        wall[hits.sample] = colour
        return wall

    def _lit(self, points: Floats) -> Floats:
        """Returns diffuse light and highlights at the vertices, V x 6."""
        scene = self.scene
        lamp = scene.light
        normals = vertex_normals(points, scene.faces, self._sums)
        towards = unit(-points)
        diffuse = np.asarray(lamp.ground + (lamp.sky - lamp.ground) * (0.5 - 0.5 * normals[:, 1:2]), np.float32)
        shine = np.zeros_like(diffuse)
        for direction, colour in zip(lamp.directions.astype(np.float32), lamp.colours.astype(np.float32), strict=True):
            facing = normals @ direction
            # Light scatters in skin: it reaches a little past the edge of shadow and is reddish there.
            reach = np.clip((facing[:, None] + _SCATTER) / (1 + _SCATTER), 0, None)
            diffuse += reach * colour
            half = np.einsum("vi,vi->v", normals, unit(towards + direction))
            gloss = np.clip(half, 0, None) ** 24 * (facing > 0) * scene.shine
            shine += 0.35 * gloss[:, None] * colour
        return (lamp.exposure * np.concatenate([diffuse, shine], 1)).astype(np.float32)

    @cached_property
    def _atlas(self) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
        """The texels of all tiles one after the other, the first texel of each tile, and each tile's width."""
        tiles = [self.scene.tiles[name] for name in self.scene.tile]
        starts = np.cumsum([0, *(t.shape[0] * t.shape[1] for t in tiles[:-1])])
        return np.concatenate([t.reshape(-1, 3) for t in tiles]), starts, np.array([t.shape[1] for t in tiles])

    @cached_property
    def _texel_places(self) -> Floats:
        """V x 2: the column and the row of each vertex in its tile."""
        sizes = np.array([[self.scene.tiles[n].shape[1], self.scene.tiles[n].shape[0]] for n in self.scene.tile])
        # Places end just short of the last texel, so that a neighbour to the right and one below exist.
        return (self.scene.uv * (sizes[self.scene.tile_of] - 1.01)).astype(np.float32)

    def _look_up(self, place: Floats, tile: NDArray[np.uint8]) -> Floats:
        """Looks colours up in the textures, bilinearly, n x 3."""
        texels, starts, widths = self._atlas
        whole = place.astype(np.int32)
        across, down = (place - whole.astype(np.float32)).T[:, :, None]
        wide = widths[tile].astype(np.int32)
        first = starts[tile].astype(np.int32) + whole[:, 1] * wide + whole[:, 0]
        colour = texels.take(first, axis=0) * ((1 - across) * (1 - down))
        colour += texels.take(first + 1, axis=0) * (across * (1 - down))
        colour += texels.take(first + wide, axis=0) * ((1 - across) * down)
        colour += texels.take(first + wide + 1, axis=0) * (across * down)
        return colour

    def _develop(self, samples: Floats, index: int) -> NDArray[np.uint8]:
        """Averages samples and applies the response curve and the sensor's noise. The result is S x S x 3 uint8."""
        size = self.scene.size
        squares = samples.reshape(size, SAMPLES, size, SAMPLES, 3)
        total = sum(squares[:, i, :, j] for i in range(SAMPLES) for j in range(SAMPLES))
        codes = np.clip(total * ((_CODES - 1) / SAMPLES**2), 0, _CODES - 1).astype(np.int32)
        grain = np.random.default_rng((index, int(1e6 * self.scene.light.grain))).standard_normal((size, size, 3), np.float32)
        return np.clip(_TO_BYTES[codes] + self.scene.light.grain * grain + 0.5, 0, 255).astype(np.uint8)


# A landmark is visible when what is drawn at its place is at most this much nearer to the camera, in metres. Points on edges (lips, lids)
# lie a few pixels beside the place where they are looked up.
TOLERANCE = 0.006


@dataclass(frozen=True)
class NamedLandmarks:
    """Points of the face that have names."""

    names: tuple[str, ...]
    """L names."""
    vertices: Ints
    """The L numbers of their vertices in the scene's mesh."""


@dataclass(frozen=True)
class SeenLandmarks:
    """Where landmarks are in a frame."""

    pixels: NDArray[np.float32]
    """L x 2 places (x, y). Pixel centres are whole numbers."""
    depth: NDArray[np.float32]
    """L depths, in metres along z."""
    visible: NDArray[np.bool_]
    """Which of the L landmarks are visible."""


def find_landmarks(scene: Scene) -> NamedLandmarks:
    """Finds the vertex that is nearest to each named place on the face at rest."""
    person, skull, skin = scene.person, scene.skull, scene.skin
    eye, mouth, nose = skull.eye, skull.mouth, skull.nose
    middle = COLUMNS // 2
    places: dict[str, tuple[float, float]] = {
        "forehead": (0, eye - 50), "glabella": (0, eye - 18), "nose_root": (0, eye - 1), "nose_bridge": (0, eye + 20),
        "nose_base": (0, nose + 8), "upper_lip_top": (0, mouth - 7.6 * person.upper_lip),
        "lower_lip_bottom": (0, mouth + 9.2 * person.lower_lip), "chin_crease": (0, mouth + 15.5), "chin": (0, mouth + 31),
    }  # fmt: skip
    for side, sign in (("right", -1), ("left", 1)):
        d = person.eye_distance
        pairs = {
            "brow_inner": (14, eye - 18), "brow_middle": (29, eye - 20.5), "brow_outer": (45, eye - 17), "eye_socket_below": (d, eye + 15),
            "eye_outer": (d + person.eye_width, eye), "eye_inner": (d - person.eye_width, eye),
            "nose_wing": (15 * person.nose_width, nose - 3), "cheekbone": (48, eye + 22),
            "cheek": (42, mouth - 8), "mouth_corner": (person.mouth_width, mouth), "jaw": (46, mouth + 14),
        }  # fmt: skip
        places |= {f"{side}_{name}": (sign * x, y) for name, (x, y) in pairs.items()}
    grid = skull.position.reshape(-1, 3)
    ahead = np.flatnonzero((np.abs(np.tile(skull.angle, len(grid) // COLUMNS)) < 1.5) & (np.arange(len(grid)) < THROAT_ROW * COLUMNS))
    found = {name: int(ahead[np.square(grid[ahead, :2] - at).sum(1).argmin()]) for name, at in places.items()}
    bridge = skull.position[EYE_ROW:MOUTH_ROW, middle, 2]
    found["nose_tip"] = (EYE_ROW + int(bridge.argmin())) * COLUMNS + middle
    found["upper_lip_edge"], found["lower_lip_edge"] = (int(edge[len(edge) // 2]) for edge in (skin.upper_edge, skin.lower_edge))
    for side, ball in zip(("right", "left"), skull.eyeballs, strict=True):
        column = int(np.abs(skull.position[EYE_ROW, :, 0] - ball[0])[COLUMNS // 4 : -COLUMNS // 4].argmin()) + COLUMNS // 4
        above, below = EYE_ROW * COLUMNS + column, (EYE_ROW + 1) * COLUMNS + column
        found[f"{side}_upper_lid"] = above
        found[f"{side}_lower_lid"] = _lower_copy(scene, above, below)
    names = tuple(sorted(found))
    return NamedLandmarks(names, np.array([found[name] for name in names], np.int32))


def locate(landmarks: NamedLandmarks, scene: Scene, view: RenderedView) -> SeenLandmarks:
    """Returns where the landmarks are in a frame, and which of them are visible."""
    points = view.points[landmarks.vertices]
    camera = scene.camera
    pixels = camera.focal * points[:, :2] / points[:, 2:] + [camera.cx, camera.cy]
    column, row = np.rint(pixels).astype(int).T
    inside = (column >= 0) & (column < scene.size) & (row >= 0) & (row < scene.size)
    drawn = view.depth[row.clip(0, scene.size - 1), column.clip(0, scene.size - 1)]
    visible = inside & (points[:, 2] < drawn + TOLERANCE)
    return SeenLandmarks(pixels.astype(np.float32), points[:, 2].astype(np.float32), visible)


def _lower_copy(scene: Scene, above: int, below: int) -> int:
    """Returns the slit's lower copy of vertex `above`. It shares a triangle with the vertex below it, and its number is past the grid's."""
    faces = scene.skin.faces
    beside = faces[(faces == below).any(1)].ravel()
    grid = scene.skull.position.shape[0] * COLUMNS
    copies = beside[(beside >= grid) & (beside < skin_count(scene))]
    distances = np.square(scene.skin.rest[copies] - scene.skin.rest[above]).sum(1)
    return int(copies[distances.argmin()])


RATE = 25  # Frames a second.
VERSION = 1  # This is the version of the heads. A change that alters pictures or ground truth for a seed must raise it.
SMALLEST, LARGEST = 32, 1024  # The side of a clip's pictures, in pixels, lies between these.
LONGEST = 2000  # Frames. The ground truth of a whole clip is in memory, which limits its length.
_QUALITY = 14  # This is better than the usual 18, so that compression keeps the skin's texture.


@dataclass(frozen=True)
class ClipRecipe:
    """What a clip is drawn from. Equal recipes give equal clips."""

    seed: int
    clip: int
    """The number of the clip within the seed."""
    size: int
    """The side of the pictures in pixels."""
    frames: int
    """The number of frames, at RATE a second."""
    version: int = VERSION


def synthesise(
    output: Path, clips: int, size: int, seed: int, frames: int, *, overwrite: bool = False, workers: int = 1,
    progress: Progress = silent,
) -> tuple[int, int]:  # fmt: skip
    """Writes clips 0 to clips - 1 to the folder `output`. Returns how many were written and how many were there already.

    A clip that is there and was drawn from the same recipe is kept. `progress` is told of each clip. Raises InputError for values out of
    range, for a worker that was ended from outside, and, without `overwrite`, for a clip that is there but was drawn from another recipe.
    """
    _check(output, clips, size, seed, frames, workers)
    recipes = [ClipRecipe(seed, number, size, frames) for number in range(clips)]
    paths = [output / f"head_{seed}_{number:05d}.mp4" for number in range(clips)]
    waiting = [(path, recipe) for path, recipe in zip(paths, recipes, strict=True) if not _is_there(path, recipe, overwrite)]
    output.mkdir(parents=True, exist_ok=True)
    done = clips - len(waiting)
    progress("heads", done, clips)
    results = (_write(job) for job in waiting)
    if workers > 1 and len(waiting) > 1:
        results = in_processes(_write, waiting, min(workers, len(waiting)))
    with closing(results):
        for number, _ in enumerate(results, done + 1):
            progress("heads", number, clips)
    return len(waiting), clips - len(waiting)


def _write(job: tuple[Path, ClipRecipe]) -> Path:
    """Writes one clip and returns its path. Processes are given functions of one argument."""
    write_clip(*job)
    return job[0]


def write_clip(path: Path, recipe: ClipRecipe) -> None:
    """Renders one clip and writes its three files, the description last."""
    scene = draw_scene(recipe.seed, recipe.clip, recipe.size, recipe.frames, RATE)
    renderer, marks = HeadRenderer(scene), find_landmarks(scene)
    depth, label, poses, seen = [], [], [], []
    path.with_suffix(".json").unlink(missing_ok=True)
    with VideoWriter(path, recipe.size, recipe.size, rate=RATE, crf=_QUALITY, overwrite=True) as video:
        for index in range(recipe.frames):
            view = renderer.frame(index)
            video.write(view.image, Fraction(index, RATE))
            depth.append(view.depth)
            label.append(view.label)
            poses.append(view.pose)
            seen.append(locate(marks, scene, view))
    camera = scene.camera
    truth = ClipTruth(
        depth=np.stack(depth),
        label=np.stack(label),
        rotation=np.stack([pose.rotation for pose in poses]).astype(np.float32),
        translation=np.stack([pose.translation for pose in poses]).astype(np.float32),
        focal=(camera.focal, camera.focal),
        principal=(camera.cx, camera.cy),
        landmarks=np.stack([np.column_stack([each.pixels, each.depth]) for each in seen]),
        visible=np.stack([each.visible for each in seen]),
        landmark_names=marks.names,
        rate=float(RATE),
        recipe=asdict(recipe),
    )
    try:
        write_truth(path, truth)
    except BaseException:
        for suffix in (".mp4", ".npz"):
            path.with_suffix(suffix).unlink(missing_ok=True)
        raise


def _is_there(path: Path, recipe: ClipRecipe, overwrite: bool) -> bool:
    """Says whether the clip is there, whole, and drawn from `recipe`. Raises InputError where another clip has its name."""
    if overwrite:
        return False
    found = recipe_of(path.with_suffix(".json"))
    if found is None:
        if path.exists():
            raise InputError(f"{path} is there without its description: remove it, or replace it with --overwrite")
        return False
    if found != asdict(recipe):
        raise InputError(f"{path} is another clip (other size, length or version): choose another folder, or replace it with --overwrite")
    return True


def _check(output: Path, clips: int, size: int, seed: int, frames: int, workers: int) -> None:
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file: give the name of a folder")
    for name, value, low, high in (
        ("--clips", clips, 1, 1_000_000), ("--size", size, SMALLEST, LARGEST), ("--seed", seed, 0, 2**31 - 1),
        ("--frames", frames, 2, LONGEST), ("--workers", workers, 1, 1024),
    ):  # fmt: skip
        if not low <= value <= high:
            raise InputError(f"{name} is {value}: must be from {low} to {high}")
    if size % 2:
        raise InputError(f"--size is {size}: must be even, as videos are")
