"""The page in the browser: a photo animated, posed and measured by clicks, and the live camera."""
