"""Stage 2 of training: keypoints, motion and generator."""
