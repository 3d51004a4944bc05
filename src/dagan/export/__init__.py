"""Writes models as graphs for other runtimes. `engine` runs them, and knows how their folders are described (`engine.sessions`)."""
