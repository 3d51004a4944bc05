"""The depth job: disparity maps of pictures and videos, as colours, as numbers, as a point cloud."""
