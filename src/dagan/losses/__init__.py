"""The losses of training: they take tensors and give scalars."""
