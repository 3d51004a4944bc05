"""Measures models: metrics, each with its range and its tool, and the protocols that apply them."""
