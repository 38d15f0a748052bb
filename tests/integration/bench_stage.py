"""A benchmark stage as somebody else would write it: it knows a published folder, and nothing of the builder.

Arguments: the folder, a model, a profile, and the words that start a program of the artifacts' machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from sparkbuild.handover import artifacts

root, model, profile, *launcher = sys.argv[1:]
results = []
for artifact in artifacts(Path(root)):
    if artifact.changed():
        raise SystemExit(f"not what was published: {artifact.changed()}")
    words = artifact.command("bench", profile, Path(model))
    done = subprocess.run(
        [*launcher, *words, "-p", "16", "-n", "4", "-r", "1"], check=True, capture_output=True, text=True
    )
    results.append({"artifact": artifact.link(), "words": words, "samples": json.loads(done.stdout)})
print(
    json.dumps({"results": results, "modules": sorted(m for m in sys.modules if m.startswith("sparkbuild"))})
)
