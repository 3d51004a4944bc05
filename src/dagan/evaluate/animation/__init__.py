"""Measures animation: pairs of a source and a driving clip, what answers them, and the metrics."""
