"""Losses of training: tensors in, scalars out."""
