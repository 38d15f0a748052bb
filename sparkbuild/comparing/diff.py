"""What differs between two artifacts, as their manifests prove it, and what that means in words.

Nothing is looked at but the two manifests. What one of them does not know is told as unknown, never as
absent, and is no difference.
"""

from __future__ import annotations

from collections.abc import Mapping

from sparkbuild.artifact.manifest import Manifest
from sparkbuild.comparing import build, contents, files
from sparkbuild.comparing.differences import Difference, Group, Side


def compare(a: Manifest, b: Manifest, names: tuple[str, str] = ("A", "B")) -> Difference:
    """Return what differs between two manifests; ``names`` are what people call them."""
    groups = (
        *(part(a, b) for part in (*build.PARTS, *contents.PARTS, *files.PARTS)),
        build.making(a, b),
    )
    sides = [Side(name, m.engine.name, m.key) for name, m in zip(names, (a, b), strict=True)]
    return Difference(sides[0], sides[1], _summary(a, b, {g.name: g for g in groups}), groups)


def _summary(a: Manifest, b: Manifest, groups: Mapping[str, Group]) -> tuple[str, ...]:
    inputs = [
        "engine",
        "source",
        "target",
        "definitions",
        "compilers",
        *(["CUDA"] if a.cuda or b.cuda else []),
    ]
    said = []
    if alike := [n for n in inputs if not groups[n].differs]:
        said.append(f"the same {', '.join(alike)}")
    if other := [g.name for g in groups.values() if g.differs and g.name != "files"]:
        said.append(f"not the same: {', '.join(other)}")
    said += groups["files"].meaning[:1]
    if a.key == b.key:
        kept = "not kept" if groups["files"].differs else "kept"
        said.append(f"the same key, which promises the same bytes: {kept}")
    return tuple(said)
