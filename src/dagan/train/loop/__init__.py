"""The training loop, which is the same for every stage: devices, logs, checkpoints and averaged weights."""
