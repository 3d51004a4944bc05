"""A disparity map as a coloured point cloud, in a binary PLY file that every 3-D viewer opens.

One picture does not tell its camera. `ASSUMED_FOCAL` is what stage 1 of training starts from; a wrong one stretches the cloud
along the line of sight and leaves its frontal view as it is. Distances are in the depth network's own unit, not in metres.

Legend: H W map.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dagan.errors import InputError
from dagan.geometry.camera import back_project, intrinsics, invert_intrinsics
from dagan.media.output import atomic_output
from dagan.models.depth import disparity_to_depth
from dagan.models.egomotion import EgomotionConfig

ASSUMED_FOCAL = EgomotionConfig().focal  # in image widths
_VERTEX = np.dtype([(axis, "<f4") for axis in "xyz"] + [(colour, "u1") for colour in ("red", "green", "blue")])


def point_cloud(disparity: np.ndarray, depth_range: tuple[float, float], focal: float = ASSUMED_FOCAL) -> np.ndarray:
    """(H W) x 3 float32 points, row by row: x to the right, y up, z towards the viewer, the camera at 0 looking along -z.

    disparity: H x W in (0, 1). depth_range: smallest and largest depth of the model (docs/method.md#depth-network). focal: focal length in
    picture widths. Raises InputError when it is not above 0.
    """
    if not focal > 0:
        raise InputError(f"focal length is {focal}: must be above 0, in picture widths")
    height, width = disparity.shape
    depth = disparity_to_depth(torch.from_numpy(np.ascontiguousarray(disparity, dtype=np.float32)), *depth_range)[None, None]
    # One focal length in pixels for both directions: pixels are square.
    lengths = torch.tensor([[focal, focal * width / height]])
    camera = invert_intrinsics(intrinsics(lengths, torch.full((1, 2), 0.5), (height, width)))
    points = back_project(depth, camera)[0].flatten(1).T
    return (points * torch.tensor([1.0, -1.0, -1.0])).numpy()


def write_ply(path: Path | str, points: np.ndarray, colours: np.ndarray, overwrite: bool = False) -> None:
    """Writes N x 3 float points with N x 3 uint8 colours, binary little-endian. Raises InputError as `atomic_output` does."""
    vertices = np.empty(len(points), _VERTEX)
    for i, axis in enumerate("xyz"):
        vertices[axis] = points[:, i]
    for i, colour in enumerate(("red", "green", "blue")):
        vertices[colour] = colours[:, i]
    properties = [f"property {'float' if name in 'xyz' else 'uchar'} {name}" for name in _VERTEX.names or ()]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}", *properties, "end_header", ""]
    with atomic_output(path, overwrite) as temporary, temporary.open("wb") as file:
        file.write("\n".join(header).encode("ascii"))
        file.write(vertices.tobytes())
