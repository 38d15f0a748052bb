"""What a probe found, for people: tables; for machines: one document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from sparkbuild.cli.render import document, table
from sparkbuild.cli.say import say
from sparkbuild.inspection.gather import shown

if TYPE_CHECKING:
    from rich.text import Text

    from sparkbuild.inspection.facts import FileFacts
    from sparkbuild.inspection.features import Pair, Verdicts
    from sparkbuild.inspection.live import Said
    from sparkbuild.inspection.probe import Probe

_STYLE = {"present": "green", "absent": "dim", "unknown": "yellow"}
_OTHERS = "What becomes of a pair without one depends on the engine: converted, another kernel, or the CPU."
_GROUPS = {"backend": "backends", "gpu": "GPU", "cpu": "CPU", "other": "other"}


def probed(probes: list[Probe], *, as_json: bool, everything: bool) -> None:
    """Show what each path has; ``everything`` lists each model and option, not only their number."""
    if as_json:
        document("probe", probes=[_machine(p) for p in probes])
        return
    for probe in probes:
        say(f"{shown(str(probe.path))}: {_engine(probe.verdicts)}", bold=True)
        _files(probe.files)
        say(f"needs from elsewhere: {', '.join(probe.verdicts.external) or 'nothing'}")
        for name, why in probe.unread.items():
            say(f"can not be read: {name}: {why}", fg="yellow")
        _findings(probe.verdicts)
        _matrix(probe.verdicts.pairs, probe.verdicts.pairs_note)
        _knows(probe.verdicts, everything=everything)
        _said(probe.said)
        for c in probe.contradictions:
            say(f"contradiction: {c.feature} is {c.static}; at run time: {c.runtime}", fg="red")


def _machine(probe: Probe) -> dict[str, object]:
    """Return the document's part: of each file's names only what the verdicts need is worth keeping."""
    fields = ("name", "size", "elf", "device_code", "instructions")
    files = [{name: getattr(f, name) for name in fields} for f in probe.files]
    return {
        "path": shown(str(probe.path)),
        "files": files,
        "unread": probe.unread,
        "verdicts": probe.verdicts,
        "said": probe.said,
        "contradictions": probe.contradictions,
    }


def _engine(verdicts: Verdicts) -> str:
    build = f"build {verdicts.number or 'unknown'}, commit {verdicts.commit or 'unknown'}"
    return f"{verdicts.title}, {build}"


def _files(files: Iterable[FileFacts]) -> None:
    rows = []
    for f in files:
        device = ", ".join(
            f"{d.entries} {d.name}{' compressed' if d.compressed == d.entries else ''}" for d in f.device_code
        )
        code = ", ".join(f"{n} {count}" for n, count in sorted(f.instructions.items()))
        rows.append((f.name, f.elf.machine, _size(f.size), f.elf.glibc, f.elf.runpath, device or code))
    heads = ("file", "machine", "size", "glibc", "RUNPATH", "device code, or instructions by CPU feature")
    table("files", heads, rows)


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _findings(verdicts: Verdicts) -> None:
    from rich.text import Text  # noqa: PLC0415

    def rows() -> Iterator[tuple[str, Text, str]]:
        in_order = sorted(verdicts.findings, key=lambda f: list(_GROUPS).index(f.group))
        for group, found in groupby(in_order, key=lambda f: f.group):
            every = list(found)
            told = [f for f in every if f.state != "absent"]
            for f in told:
                said = "; ".join(f.evidence) or f.reason
                yield f.name, Text(f.state, _STYLE[f.state]), f"{f.title}: {said}"
            if absent := [f.name for f in every if f.state == "absent"]:
                yield _GROUPS[group], Text("absent", _STYLE["absent"]), ", ".join(absent)

    table("features", ("feature", "state", "evidence"), rows())


def _matrix(pairs: tuple[Pair, ...], others: str) -> None:
    """Print K down and V across, in each place the head sizes that have a vector kernel."""
    if not pairs:
        return
    types = list(dict.fromkeys([p.k for p in pairs] + [p.v for p in pairs]))
    heads: dict[tuple[str, str], list[int]] = {}
    for p in pairs:
        heads.setdefault((p.k, p.v), []).append(p.head)
    every = sorted({p.head for p in pairs})
    rows = [
        (
            k,
            *(
                "all" if heads.get((k, v)) == every else ",".join(map(str, heads.get((k, v), ["-"])))
                for v in types
            ),
        )
        for k in types
    ]
    note = f"all: head sizes {', '.join(map(str, every))}. {others or _OTHERS}"
    table("FlashAttention vector kernels: K (-ctk) down, V (-ctv) across", ("", *types), rows, note=note)


def _knows(verdicts: Verdicts, *, everything: bool) -> None:
    known = [m.name for m in verdicts.models if m.state == "present"]
    unknown = [m.name for m in verdicts.models if m.state == "unknown"]
    say(f"models: {len(known)} architectures{_listed(known, everything)}")
    if verdicts.models_reason:
        say(f"  unknown: {len(unknown)}{_listed(unknown, everything)}; {verdicts.models_reason}")
    say(f"options: {len(verdicts.options)}{_listed(verdicts.options, everything)}")


def _said(said: Said | None) -> None:
    if said is None:
        say("run time: not run; --run starts its programs, so only for binaries you trust")
        return
    rows = [("system", said.system.ran, said.system.system_info or said.system.reason)]
    devices = [f"{d.name} ({d.kind}) {d.description}" for b in said.system.backends for d in b.devices]
    rows.append(("devices", said.system.ran, "; ".join(devices) or "none"))
    rows += [
        (f"{said.tool} {word}", answer.ran, answer.output or answer.reason)
        for word, answer in (("--version", said.version), ("--list-devices", said.devices))
        if said.tool
    ]
    rows.append(("KV cache types", "", ", ".join(said.cache_types) or "its help does not name them"))
    rows.append(("drafts", "", ", ".join(said.drafts) or "its help does not name them"))
    table("run time", ("asked", "ran", "said"), rows)


def _listed(names: Iterable[str], everything: bool) -> str:
    return f": {', '.join(names)}" if everything else ""
