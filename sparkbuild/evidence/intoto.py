"""The frame of an in-toto Statement v1 (https://github.com/in-toto/attestation, spec/v1/statement.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

TYPE = "https://in-toto.io/Statement/v1"


def statement(kind: str, subjects: Sequence[Mapping[str, Any]], predicate: Mapping[str, Any]) -> bytes:
    """Return a statement as sorted, indented ASCII JSON with a final newline: the bytes to be signed.

    ``kind`` is the predicate's type, a URI; ``subjects`` are resource descriptors.
    """
    whole = {"_type": TYPE, "subject": subjects, "predicateType": kind, "predicate": predicate}
    return json.dumps(whole, indent=2, sort_keys=True).encode() + b"\n"


def resource(name: str, digest: Mapping[str, str], **more: object) -> dict[str, Any]:
    """Return a resource descriptor (spec/v1/resource_descriptor.md there) less what is empty in ``more``."""
    return {"name": name, "digest": dict(digest)} | {k: v for k, v in more.items() if v}
