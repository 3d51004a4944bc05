"""A trained model behind plain arrays: pictures in, keypoints, disparity maps or pictures out, in whichever runtime computes."""
