"""Clip data sets: finding, decoding, drawing and augmenting frames; preparation of raw videos."""
