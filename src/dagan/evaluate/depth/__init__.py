"""Measures depth against ground truth or against landmarks."""
