"""Measuring models: metrics, each with its range and tool stated, and the protocols that apply them."""
