"""Build llama.cpp and its forks for DGX Spark and other Grace machines, and know what was built."""

__version__ = "0.1.0"
