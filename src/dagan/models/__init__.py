"""The networks: tensors in, tensors out; no files, no printing."""
