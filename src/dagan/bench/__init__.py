"""Measures speed: a model's parts and whole runs, in every runtime, beside the naive way to compute the same."""
