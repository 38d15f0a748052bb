"""Artifacts: what they hold, the manifest that says so, the store that keeps them."""
