"""Whether an artifact is what is said of it."""
