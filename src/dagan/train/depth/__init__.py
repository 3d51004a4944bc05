"""Stage 1 of training: the face depth network, from plain videos."""
