"""Animation: the streaming job and the Python interface `Animator`."""
