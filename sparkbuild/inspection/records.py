"""What a manifest holds of a binary, apart from what reads one: who reads a manifest need not load that."""

from __future__ import annotations

import msgspec


class DeviceCode(msgspec.Struct, frozen=True):
    """One kind of device code: SASS as ``sm_121a`` or PTX as ``compute_121a``.

    ``entries`` says how many there are, one for each translation unit as a rule, ``compressed`` how
    many of them nvcc compressed.
    """

    name: str
    entries: int
    compressed: int = 0
