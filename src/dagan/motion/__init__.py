"""Movement without pictures: motion files, its transfer to another face, its limits, and the frame it is counted from."""
