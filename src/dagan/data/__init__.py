"""Clip data sets: frames of clips are found, decoded, drawn and augmented; ground truth of synthetic clips is read and written."""
