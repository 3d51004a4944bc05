"""An engine is a trained model behind plain arrays: it takes pictures and gives keypoints, disparity maps or pictures.

Every engine does this alike, whichever runtime computes.
"""
