"""What a binary has: its facts, what they prove, what it says itself, and where the two disagree."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from sparkbuild.catalog import Catalog
from sparkbuild.errors import BinaryError, FindingError, UsageError, did_you_mean
from sparkbuild.inspection.facts import FileFacts, file_facts, wanted_names
from sparkbuild.inspection.features import ALL_QUANTS, State, Verdicts, judge
from sparkbuild.inspection.gather import elf_files, shown
from sparkbuild.inspection.live import Contradiction, How, Said, contradictions, listen, with_models
from sparkbuild.progress import Progress


class Probe(msgspec.Struct, frozen=True):
    """All that is known of one path.

    ``unread`` says of files why they can not be read; ``said`` is None when nothing was run.
    """

    path: Path
    files: tuple[FileFacts, ...]
    verdicts: Verdicts
    unread: dict[str, str] = {}
    said: Said | None = None
    contradictions: tuple[Contradiction, ...] = ()


def probe(path: Path, catalog: Catalog, progress: Progress, how: How | None = None) -> Probe:
    """Return what the binaries at ``path`` (a file, folder or archive) have; with ``how`` they are run.

    Raises UsageError when there is no such path, BinaryError when no file of it can be read.
    """
    rules = catalog.features().record
    recipes = [shelf.record for shelf in catalog.recipes().values()]
    wanted = wanted_names(rules, recipes)
    progress.stage(f"read {shown(str(path))}")
    with tempfile.TemporaryDirectory(prefix="sparkbuild-probe-") as work:
        files = dict(elf_files(path, Path(work)))
        facts: list[FileFacts] = []
        unread: dict[str, str] = {}
        for number, (name, file) in enumerate(files.items()):
            progress.advance(number, len(files), name)
            try:
                facts.append(file_facts(name, file, wanted))
            except BinaryError as problem:
                unread[name] = problem.what
                if len(unread) == len(files):
                    raise
        verdicts = judge(facts, rules, recipes, unread)
        if not how:
            return Probe(path, tuple(facts), verdicts, unread)
        progress.stage(f"run what can be run of {shown(str(path))}")
        names = [m.name for m in verdicts.models]
        if how.view is not None:
            how = msgspec.structs.replace(how, view=(*how.view, path.absolute(), Path(work)))
        said = listen(files, facts, rules, names, how, Path(work))
    against = contradictions(verdicts, rules, said)
    return Probe(path, tuple(facts), with_models(verdicts, said.models), unread, said, against)


def require(verdicts: Verdicts, files: Sequence[FileFacts], wanted: str) -> FindingError | None:
    """Return why something that is wanted of a build is not certain to be there, None when it is.

    ``wanted`` is a feature's name, device code such as sm_121a, model:NAME, option:--NAME, or
    kv:K/V[@HEAD SIZE]. Raises UsageError for anything else.
    """
    kind, colon, name = wanted.partition(":")
    answers: dict[str, Callable[[], str]] = {
        "model": lambda: _model_state(verdicts, name),
        "option": lambda: "present" if name in verdicts.options else "absent",
        "kv": lambda: _pair_state(verdicts, name),
    }
    if colon and kind in answers:
        state = answers[kind]()
    elif re.fullmatch(r"(?:sm|compute)_\d+[af]?", wanted):
        state = "present" if any(d.name == wanted for f in files for d in f.device_code) else "absent"
    elif wanted in (known := [f.name for f in verdicts.findings]):
        state = verdicts.state(wanted)
    else:
        raise UsageError(
            f"nothing is known by the name {wanted!r}",
            where="--require",
            remedy=did_you_mean(wanted, known) + "or model:NAME, option:--NAME, kv:K/V@HEAD, sm_121a",
        )
    return None if state == "present" else FindingError(f"{wanted} is {state}")


def _model_state(verdicts: Verdicts, name: str) -> State:
    default: State = "absent" if verdicts.models else "unknown"
    return next((m.state for m in verdicts.models if m.name == name), default)


def _pair_state(verdicts: Verdicts, text: str) -> State:
    match = re.fullmatch(r"(?P<k>\w+)/(?P<v>\w+)(?:@(?P<head>\d+))?", text)
    if not match:
        raise UsageError(f"not a pair: {text!r}", where="--require", remedy="write kv:q4_0/q8_0@128")
    head = int(match["head"] or 128)
    if any((p.head, p.k, p.v) == (head, match["k"], match["v"]) for p in verdicts.pairs):
        return "present"
    return "absent" if verdicts.pairs else verdicts.state(ALL_QUANTS)  # unknown where no kernel has a name
