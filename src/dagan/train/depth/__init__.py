"""Stage 1 of training teaches the face depth network, from plain videos."""
