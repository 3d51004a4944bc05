"""Computes the statistics of an evaluation run and writes its pages: HTML, Markdown and plots."""
