"""The training loop, the same for every stage: devices, logs, checkpoints, averaged weights."""
