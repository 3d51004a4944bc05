"""Animation: the job, which works through a video as a stream, and the Python interface `Animator`."""
