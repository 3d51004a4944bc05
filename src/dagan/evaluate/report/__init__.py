"""Statistics of an evaluation run, and its pages: HTML, Markdown and plots."""
