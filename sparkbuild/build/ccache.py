"""ccache itself: the settings under which it is right, and the log of what it did.

Source: ccache's manual, 4.7 to 4.12, "Configuration options" and "Cache statistics".
"""

from __future__ import annotations

from pathlib import Path

from sparkbuild.files import read_plain, write_whole

_GIB = 20  # beyond which it removes what was not used for longest; a CUDA build takes about 0.3 GiB


def configure(path: Path, folder: Path, namespace: str, log: Path, storage: str = "") -> dict[str, str]:
    """Write ccache's settings to ``path`` and return the environment that makes it read them and no others.

    In depend mode it looks at what the compiler says it read; its default mode returned stale CUDA objects,
    whose host and device parts see different code. The namespace names the compilers; that they are the same
    at each call ccache sees by their time here, and by their bytes (nvcc's are 30 MB) where machines share.
    All settings that matter are given, whatever a version's defaults are.
    """
    settings = {
        "cache_dir": str(folder),
        "max_size": f"{_GIB}Gi",
        "depend_mode": "true",
        "direct_mode": "true",
        "compiler_check": "content" if storage else "mtime",
        "namespace": namespace,
        "sloppiness": "",
        "hash_dir": "true",
        "base_dir": "",
        "inode_cache": "false",
        "hard_link": "false",
        "file_clone": "false",
        "stats_log": str(log),
    }
    if storage:
        settings["remote_storage"] = storage
    text = "".join(f"{name} = {value}\n" for name, value in settings.items()).replace("$", "${DOLLAR}")
    write_whole(path, text.encode(), mode=0o600)  # an address may hold a password
    return {"CCACHE_CONFIGPATH": str(path), "DOLLAR": "$"}  # the one way to write it: it expands what follows


def calls(log: Path) -> list[tuple[str, frozenset[str]]]:
    """Return each call's source file and what happened, in ccache's words. Raises OSError.

    In a stats log a call is "# FILE" and then one word a line.
    """
    text = read_plain(log).decode(errors="replace")
    found = text.removeprefix("# ").split("\n# ")
    return [(name, frozenset(words.split())) for name, _, words in (f.partition("\n") for f in found) if name]
