"""Grids, sampling, cameras and thin-plate transforms: the mathematics that networks, losses and jobs share."""

from dagan.geometry.grid import ThinPlateTransform, coordinate_grid, gaussian_heatmap, inverse_2x2, resize, resize_grid, sample

__all__ = ["ThinPlateTransform", "coordinate_grid", "gaussian_heatmap", "inverse_2x2", "resize", "resize_grid", "sample"]
