"""Animation measured: pairs of source and driving clip, what answers them, and the metrics."""
