"""Smoke tests: an artifact's own tools load a tiny model, answer and bench."""
