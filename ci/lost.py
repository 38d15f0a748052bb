"""What an engine's newest build lacks that the pinned one has: exit code 1 when there is anything.

sparkbuild diff PINNED NEWEST --json | python -m ci.lost
"""

from __future__ import annotations

import json
import sys
from typing import Any

_NAMES = ("KV pairs", "models", "options")  # groups of `sparkbuild diff` whose members are names


def lost(difference: dict[str, Any]) -> list[str]:
    """Return in words what only A has; what is not known of one side is not lost."""
    groups = {g["name"]: g for g in difference["groups"]}
    gone = [f"feature {v['what']}" for v in groups["features"]["values"] if _gone(v)]
    return gone + [f"{group}: {name}" for group in _NAMES for name in groups[group]["only_a"]]


def _gone(value: dict[str, Any]) -> bool:
    return (value["kind"], value["a"], value["b"]) == ("differs", "present", "absent")


if __name__ == "__main__":
    document = json.load(sys.stdin)
    found = lost(document["difference"]) if "difference" in document else ["nothing could be compared"]
    print("\n".join(found) or "nothing is lost")
    raise SystemExit(1 if found else 0)
