"""Draws procedural talking heads with exact ground truth. They are made by code alone, without a downloaded model.

`anatomy` says who a head is, `parts` and `texture` model it, and `scene` says how it moves and where the camera is. `clip` draws what is
seen, with the z-buffer of `mesh`, and writes it to files. Lengths are millimetres in head coordinates while a head is modelled, and
metres as soon as a camera sees it. In head coordinates x goes to the image's right, y down and z away from the camera; y = 0 is at the
eyes, x = 0 in the middle, z = 0 at the ears.
"""
