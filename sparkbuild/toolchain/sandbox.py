"""What stands before a command whose code is not trusted: bubblewrap, and a machine almost without content.

Such a command has the system's programs and libraries, what it is shown, and one folder to write to. All
of it is read-only but that folder and a few in memory; there is no network, no other process, no device
but the harmless ones, nothing of the user's. docs/sandbox.md says what that promises.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

import msgspec

from sparkbuild import process
from sparkbuild.errors import MissingError, StoreError

_SYSTEM = Path("/usr")
_ROOT_LINKS = (
    "/bin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/sbin",
)  # into /usr, or folders of older systems
# The loader's list of libraries; where "cc" leads; what CMake says the system is; how many CPUs there are.
_SETTINGS = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/os-release", "/etc/debian_version")
_CPUS = "/sys/devices/system/cpu"
_IN_MEMORY = ("/tmp", "/var/tmp")  # noqa: S108 - the sandbox's own
_PATIENCE = 3600.0  # seconds to remove a folder
# A sandbox of root's owns the devices: it could change the modes of the host's, so they are read-only there.
_GUARD_EACH = "mount --bind /dev/$d /dev/$d && mount -o remount,bind,ro /dev/$d"
_GUARD_ALL = f'for d in null zero full random urandom tty; do {_GUARD_EACH} || exit; done; exec "$@"'
_GUARD = ("unshare", "--mount", "sh", "-c", _GUARD_ALL, "sh")
_NOBODY = 1000  # who root is in there: any number but its own


class View(msgspec.Struct, frozen=True):
    """What a sandbox shows beside the system: folders or files to read, and folders to write to.

    Each is seen at its own path; one of ``reads`` that is not there is left out.
    """

    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()


def enter(view: View, *, user: int | None = None, more: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return the words that stand before a command to run it in a sandbox; ``more`` are bubblewrap's own.

    It is another user there, without capabilities, and can make no namespaces in which it had some. When
    its first process ends all others do, and all do when sparkbuild does.
    """
    who = str(user if user is not None else os.getuid() or _NOBODY)
    words = ["bwrap", "--die-with-parent", "--as-pid-1", "--unshare-user", "--uid", who, "--gid", who]
    words += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    words += ["--disable-userns", "--cap-drop", "ALL", "--hostname", "sandbox"]
    words += ["--proc", "/proc", "--dev", "/dev", "--ro-bind", str(_SYSTEM), str(_SYSTEM)]
    for link in map(Path, _ROOT_LINKS):
        if link.is_symlink():
            words += ["--symlink", os.readlink(link), str(link)]  # noqa: PTH115 - as it is written
        else:
            words += ["--ro-bind-try", str(link), str(link)]
    for path in (*_SETTINGS, _CPUS):
        words += ["--ro-bind-try", path, path]
    for path in _IN_MEMORY:
        words += ["--perms", "1777", "--tmpfs", path]
    for read in view.reads:
        if not read.is_relative_to(_SYSTEM):
            words += ["--ro-bind-try", str(read), str(read)]
    for folder in view.writes:
        words += ["--bind", str(folder), str(folder)]
    # Root's number alone, without a capability, is enough to write to the kernel's settings in /proc/sys.
    return (*_guard(), *words, *more, "--remount-ro", "/proc", "--remount-ro", "/", "--")


@functools.cache
def _guard() -> tuple[str, ...]:
    """Return the words that guard the devices' modes; none where root may not mount, as in a container."""
    return () if os.getuid() or tried(_GUARD) else _GUARD


@functools.cache
def why_not() -> str:
    """Return why this machine gives no sandbox; empty when it does."""
    return tried(enter(View()))


def tried(words: tuple[str, ...]) -> str:
    """Return what bubblewrap says when nothing is to be done in there; empty when it works."""
    try:
        process.run([*words, "true"])
    except process.ProcessError as problem:
        said = problem.done.errors.strip().splitlines()
        return said[-1] if said else f"bubblewrap (bwrap): {problem.why}"
    return ""


def check() -> None:
    """Raise MissingError where this machine gives no sandbox: then nothing of what is not trusted runs."""
    if why := why_not():
        raise MissingError(
            f"no sandbox is possible here: {why}", where="bwrap, as docs/sandbox.md says", remedy=REMEDY
        )


def clear(folder: Path) -> None:
    """Remove a folder that anybody may have filled, however deep it goes. Raises StoreError.

    Python's own rmtree calls itself for each level, and its TemporaryDirectory follows links when it
    changes modes (CVE-2023-6597). chmod -R follows none.
    """
    for words in (["rm", "-rf"], ["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
        done = process.run([*words, "--", folder], check=False, timeout=_PATIENCE)
        if not os.path.lexists(folder):
            return
    said = done.errors.strip().splitlines()
    raise StoreError(
        f"{folder.name} can not be removed: {said[0] if said else process.reason(done.returncode)}",
        where=str(folder),
        remedy=f"look whose it is; then rm -r {folder}",
    )


REMEDY = (
    "apt-get install bubblewrap (0.8 or newer); where AppArmor forbids user namespaces, as on Ubuntu 24.04, "
    "give bwrap a profile that allows them, or sysctl kernel.apparmor_restrict_unprivileged_userns=0"
)
