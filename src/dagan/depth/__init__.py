"""The depth job: disparity maps of pictures and videos, as colours, as numbers, or as a point cloud."""
