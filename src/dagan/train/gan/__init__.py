"""Stage 2 of training teaches keypoints, motion and generator."""
