"""Movement without pictures: motion files, transfer to another face, limits, and the reference frame from which movement counts."""
