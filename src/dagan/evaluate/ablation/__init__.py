"""Compares variants of a recipe: run.py trains and measures them, stages.py says how each stage is measured, tables.py shows what came."""
