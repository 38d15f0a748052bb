"""An engine's source: checked out, patched, and the options it declares."""

from __future__ import annotations

from sparkbuild.source.checkout import checkout, intact
from sparkbuild.source.options import Declared, declared, declared_options, reads_variable, scan
from sparkbuild.source.records import Option, Patch, SourceTree

__all__ = [
    "Declared",
    "Option",
    "Patch",
    "SourceTree",
    "checkout",
    "declared",
    "declared_options",
    "intact",
    "reads_variable",
    "scan",
]
