"""``python -m sparkbuild``."""

from sparkbuild.cli import entry

if __name__ == "__main__":
    entry()
