"""What counts as lost between two builds: judged on what `sparkbuild diff` says of real manifests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from ci.lost import lost
from sparkbuild.artifact.manifest import Manifest
from sparkbuild.comparing.diff import compare
from sparkbuild.inspection.features import Finding, Pair
from tests.conftest import manifest_of

_ROOT = Path(__file__).parents[3]


def having(
    manifest: Manifest, states: dict[str, Any], options: tuple[str, ...], pairs: tuple[Pair, ...]
) -> Manifest:
    findings = tuple(Finding(name, name, "other", state) for name, state in states.items())
    verdicts = structs.replace(manifest.verdicts, findings=findings, options=options, pairs=pairs)
    return structs.replace(manifest, verdicts=verdicts)


def test_what_only_the_pinned_build_has_is_lost() -> None:
    made = manifest_of()
    q8, f16 = Pair(128, "q8_0", "q8_0"), Pair(128, "f16", "f16")
    old = having(made, {"a": "present", "b": "present", "c": "absent"}, ("--x", "--y"), (q8, f16))
    new = having(made, {"a": "absent", "b": "unknown", "c": "present"}, ("--y", "--z"), (f16,))
    difference = msgspec.to_builtins(compare(old, new))
    assert lost(difference) == ["feature a", "KV pairs: q8_0/q8_0 @128", "options: --x"]
    assert lost(msgspec.to_builtins(compare(old, old))) == []


def test_what_could_not_be_compared_is_a_finding() -> None:
    error = json.dumps({"schema": "sparkbuild/error/1", "error": {"what": "no artifact"}})
    done = subprocess.run(
        [sys.executable, "-m", "ci.lost"], cwd=_ROOT, input=error, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "nothing could be compared\n")
