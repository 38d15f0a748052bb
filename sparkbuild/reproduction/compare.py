"""How near the files of a rebuild come to the recorded ones: each file's level, then the artifact's."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from sparkbuild import process
from sparkbuild.artifact.manifest import File, Manifest
from sparkbuild.errors import BinaryError
from sparkbuild.files import sha256_file
from sparkbuild.inspection.fatbin import device_code_digest
from sparkbuild.inspection.features import State, Verdicts
from sparkbuild.reproduction.records import LADDER, FileComparison, Level

# What no running program ever looks at: the symbol table, the compiler's version, the build id.
_WITHOUT = (".comment", ".note.gnu.build-id")
_TIMEOUT = 600.0  # seconds for the largest library
_DEVICE_CODE = LADDER.index("device code")


class Normaliser(msgspec.Struct, frozen=True):
    """What takes away from a binary that which changes nothing: its name, and the command's first words.

    The command's last two words are the file to read and the file to write.
    """

    name: str
    argv: tuple[str, ...]

    def digest(self, path: Path) -> str:
        """Return the SHA-256 of a file without those parts. Raises ProcessError."""
        with tempfile.TemporaryDirectory(prefix="sparkbuild-strip-") as work:
            out = Path(work, "out")
            process.run([*self.argv, path, out], timeout=_TIMEOUT)
            return sha256_file(out)


def find_normaliser(cc: Path) -> Normaliser | None:
    """Return what strips with the objcopy that belongs to a compiler; None when there is none."""
    try:
        printed = process.run([cc, "-print-prog-name=objcopy"]).output.strip()
        # A compiler that has none of its own prints the bare name.
        found = shutil.which(printed, path=f"{cc.parent}:{process.SYSTEM_PATH}")
        if not found:
            return None
        version = process.run([found, "--version"]).output.partition("\n")[0].strip()
    except process.ProcessError:
        return None
    argv = (found, "--strip-all", *(f"--remove-section={s}" for s in _WITHOUT))
    return Normaliser(f"{version}: --strip-all, without {' and '.join(_WITHOUT)}", argv)


def compare_files(
    recorded: Iterable[File], original: Path | None, rebuilt: Path, normaliser: Normaliser | None
) -> tuple[FileComparison, ...]:
    """Return the level of each file that either side has, by path: "features" is for ``judge`` to say.

    ``rebuilt`` is the folder that holds the new bin/, ``original`` the one of the recorded artifact,
    None where it is not at hand; a file there that is not the recorded one any more does not count.
    """
    expected = {f.path: f for f in recorded}
    found = {f"bin/{p.name}": p for p in (rebuilt / "bin").iterdir() if p.is_file()}
    compared = []
    for path in sorted(expected | found):
        file, new = expected.get(path), found.get(path)
        was, became = file.sha256 if file else "", sha256_file(new) if new else ""
        level: Level = "identical" if was == became else "different"
        if was != became and file and new and original:
            level = _level(file, original / path, new, normaliser)
        compared.append(FileComparison(path, was, became, level))
    return tuple(compared)


def _level(file: File, old: Path, new: Path, normaliser: Normaliser | None) -> Level:
    """Return the level of two files whose bytes differ."""
    if not old.is_file() or sha256_file(old) != file.sha256:
        return "different"
    try:
        if normaliser and normaliser.digest(old) == normaliser.digest(new):
            return "stripped"
    except process.ProcessError:
        pass  # one of them is nothing that objcopy can read: so they are not the same to it
    try:
        code = device_code_digest(old)
        return "device code" if code and code == device_code_digest(new) else "different"
    except BinaryError:
        return "different"


def judge(
    files: Sequence[FileComparison], recorded: Manifest, verdicts: Verdicts
) -> tuple[Level, tuple[FileComparison, ...]]:
    """Return the artifact's level and its files, those at "different" raised where the verdicts agree.

    A file that one side lacks makes the artifact "different", whatever the verdicts say.
    """
    whole = bool(files) and all(f.recorded and f.rebuilt for f in files)
    same = same_verdicts(recorded.verdicts, verdicts)
    judged = tuple(_raised(f) if same else f for f in files)
    worst = max((LADDER.index(f.level) for f in files), default=len(LADDER) - 1)
    if worst < _DEVICE_CODE:
        return LADDER[worst], judged
    if not (whole and same):
        return "different", judged
    carriers = {f.path for f in recorded.files if f.device_code}
    near = all(LADDER.index(f.level) <= _DEVICE_CODE for f in files if f.path in carriers)
    return "device code" if carriers and near else "features", judged


def _raised(file: FileComparison) -> FileComparison:
    both = file.level == "different" and file.recorded and file.rebuilt
    return msgspec.structs.replace(file, level="features") if both else file


def same_verdicts(one: Verdicts, other: Verdicts) -> bool:
    """Return whether two sets of binaries have the same features.

    What is said in evidence counts instructions and quotes the rules of the day, so it is left out. A
    model that one side leaves open agrees with either answer: a run may have settled it on the other.
    """
    if _settled(one) != _settled(other):
        return False
    mine, theirs = ({m.name: m.state for m in v.models} for v in (one, other))
    return mine.keys() == theirs.keys() and all(
        "unknown" in (state, theirs[name]) or state == theirs[name] for name, state in mine.items()
    )


def _settled(verdicts: Verdicts) -> tuple[object, ...]:
    states: dict[str, State] = {f.name: f.state for f in verdicts.findings}
    who = (verdicts.engine, verdicts.number, verdicts.commit)
    return (*who, states, verdicts.pairs, verdicts.options, verdicts.external, verdicts.cuda_major)
