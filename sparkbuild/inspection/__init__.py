"""Facts about binaries: read from their bytes, or asked of them while they run."""
