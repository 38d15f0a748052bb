"""Rebuild what a manifest describes, compare, and find the cause of a difference."""
