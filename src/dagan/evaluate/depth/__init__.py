"""Depth measured, against ground truth or against landmarks."""
