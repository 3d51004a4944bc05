"""Measures speed: a model's parts and whole runs, in every runtime."""
