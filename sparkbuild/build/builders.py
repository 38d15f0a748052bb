"""Other machines that compile for this one: sccache-dist does the costly steps, and no byte differs.

sccache itself takes nvcc apart in its own way, and its objects differ from nvcc's. So nvcc runs here as it
always does, and the programs that it starts (cudafe++, cicc, ptxas, the host compiler) are what other
machines do: in the build's namespace each is replaced, at its own path, by a script that hands the step to
sccache. Preprocessing, fatbinary and links stay here. docs/distributed.md says what was measured.

Source: sccache 0.16, docs/Distributed.md and DistributedQuickstart.md; its client drops SOURCE_DATE_EPOCH
(src/cmdline.rs), which is why it starts the host compilers by a script that sets it again.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from shlex import quote
from typing import Annotated

import msgspec

from sparkbuild import process
from sparkbuild.build.toolbox import pack, steps
from sparkbuild.errors import MissingError, UsageError
from sparkbuild.files import Folders
from sparkbuild.planning import Plan
from sparkbuild.toolchain.place import BUILD, ROOM

_STEPS = ROOM / "steps"  # what sccache starts, in the build's namespace
_OWN = Path(".env/builders")  # in the build folder
_MARK = Path(".env/distributed")  # stays with what was made
_MARKS = {"cudafe++": "--gen_c_file_name", "ptxas": "-o", "cicc": "-o"}  # in a compile, not in --version
_SHIM = """#!/bin/bash
if [[ -n $SCCACHE_CONF && " $* " == *" {mark} "* && " $* " != *" -E "* ]]; then
    if [[ ! -S $SCCACHE_SERVER_UDS ]]; then
        {{
            flock 9
            [[ -S $SCCACHE_SERVER_UDS ]] || TMPDIR={room} {sccache} --start-server 9>&-
        }} 9>"$SCCACHE_SERVER_UDS.lock" &>/dev/null
    fi
    exec {sccache} {step} "$@"
fi
exec -a "$0" {real} "$@"
"""
_HOST = """#!/bin/bash
SOURCE_DATE_EPOCH={epoch} exec -a {name} {real} "$@"
"""
_CONFIGURATION = """[cache.disk]
dir = {unused}
[dist]
scheduler_url = {scheduler}
cache_dir = {toolchains}
toolchain_cache_size = 4294967296
[dist.auth]
type = "token"
token = {token}
"""
_TOOLCHAIN = """[[dist.toolchains]]
type = "path_override"
compiler_executable = {}
archive = {}
archive_compiler_executable = {}
"""


class Builders(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The machines to compile on: the address of their scheduler, and the word that it asks for."""

    scheduler: Annotated[str, msgspec.Meta(pattern=r"^https?://[A-Za-z0-9.\-:\[\]]+/?\Z")]
    token: Annotated[str, msgspec.Meta(pattern=r"^[!-~]+\Z")]


class Spread(msgspec.Struct, frozen=True):
    """How a build hands its steps on: what it sees in place of what, and the environment of its compiles."""

    shown: tuple[tuple[Path, Path], ...]
    environment: dict[str, str]


def load(path: Path) -> Builders:
    """Read a file that names the machines: TOML, with ``scheduler`` and ``token``. Raises UsageError."""
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise UsageError("others may read its token", where=str(path), remedy=f"chmod 600 {path}")
        return msgspec.toml.decode(path.read_bytes(), type=Builders)
    except (OSError, msgspec.MsgspecError, ValueError) as problem:
        raise UsageError(
            f"this does not name machines to compile on: {problem}",
            where=str(path),
            remedy='write two lines: scheduler = "http://HOST:PORT" and token = "..."',
        ) from problem


def spread(builders: Builders, plan: Plan, folders: Folders, where: Path) -> Spread:
    """Make ready for a build in ``where``. Raises MissingError without sccache, StoreError on a full disk.

    The environment belongs to the compiles alone: without it every replaced program is what it was.
    """
    sccache, own = find_sccache(), where / _OWN
    forget(where)  # a toolchain of before, a socket that nobody listens to
    own.mkdir(parents=True)
    (where / _MARK).touch()
    archive = pack(plan, folders.cache / "builders")
    shown, toolchains = [], ""
    for program, name in steps(plan).items():
        host = program in (plan.compilers.cc.resolve(), plan.compilers.cxx.resolve())
        real, step = _STEPS / "real" / program.name, _STEPS / program.name
        words = {"sccache": quote(str(sccache)), "step": quote(str(step)), "real": quote(str(real))}
        words["room"] = str(ROOM)  # a short path: sccache makes a socket there
        shim = _script(own / program.name, _SHIM.format(mark="-c" if host else _MARKS[program.name], **words))
        started = program
        if host:
            epoch = plan.environment["SOURCE_DATE_EPOCH"]
            text = _HOST.format(epoch=epoch, name=quote(str(program)), real=words["real"])
            started = _script(own / f"{program.name}.here", text)
        shown += [(program, real), (started, step), (shim, program)]
        toolchains += _TOOLCHAIN.format(*map(json.dumps, (str(step), str(archive), name)))
    text = _CONFIGURATION.format(
        unused=json.dumps(str(own / "unused")),
        toolchains=json.dumps(str(own / "dist")),
        scheduler=json.dumps(builders.scheduler),
        token=json.dumps(builders.token),
    )
    settings = own / "client.toml"
    settings.touch(mode=0o600)
    settings.write_text(text + toolchains)
    return Spread(tuple(shown), _environment(settings, BUILD / _OWN / "socket"))


def forget(where: Path) -> None:
    """Remove what `spread` left in a build folder: it holds the token."""
    shutil.rmtree(where / _OWN, ignore_errors=True)


def was_spread(where: Path) -> bool:
    """Return whether other machines may have made any of what is in a build folder."""
    return (where / _MARK).exists()


def status(builders: Builders, where: Path) -> str:
    """Return what the scheduler says of its machines; it is asked as a build in ``where`` would ask it."""
    sccache = find_sccache()
    with tempfile.TemporaryDirectory() as folder:
        env = process.clean_env(
            TMPDIR=folder, HOME=folder, **_environment(where / _OWN / "client.toml", Path(folder, "s"))
        )
        try:
            said = json.loads(process.run([sccache, "--dist-status"], env=env).output)
        except (process.ProcessError, ValueError):
            said = {}
        finally:
            process.run([sccache, "--stop-server"], env=env, check=False)
    try:
        servers, cpus = (said["SchedulerStatus"][1][key] for key in ("num_servers", "num_cpus"))
    except (KeyError, IndexError, TypeError):
        return f"{builders.scheduler} does not answer: everything is compiled here"
    return f"{servers} machines with {cpus} cores compile, too, as {builders.scheduler} says"


def find_sccache(name: str = "sccache") -> Path:
    """Return one of sccache's programs, as it was installed with sparkbuild or by the system."""
    path = os.pathsep.join((str(Path(sys.executable).parent), process.SYSTEM_PATH))
    if found := shutil.which(name, path=path):
        return Path(found)
    raise MissingError(f"{name} is missing", where=path, remedy="pip install 'sparkbuild[distributed]'")


def _environment(settings: Path, socket: Path) -> dict[str, str]:
    """Return what sccache reads: no cache, a server of the build's own, and compiles here if that fails."""
    return {
        "SCCACHE_CONF": str(settings),
        "SCCACHE_SERVER_UDS": str(socket),
        "SCCACHE_NO_CACHE": "1",
        "SCCACHE_DIRECT": "false",
        "SCCACHE_IDLE_TIMEOUT": "0",
        "SCCACHE_IGNORE_SERVER_IO_ERROR": "1",
    }


def _script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path
