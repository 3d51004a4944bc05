"""Procedural talking heads with exact ground truth: made by code alone, no downloaded model.

identity (who) -> mesh, parts, texture (what is modelled) -> motion, expression (what moves) -> raster, render (what is seen)
-> clip, files (what is kept). Lengths are millimetres in head coordinates while modelling, metres as soon as a camera sees them:
x to the image's right, y down, z away from the camera; y = 0 at the eyes, x = 0 in the middle, z = 0 at the ears.
"""
