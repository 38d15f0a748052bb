"""A service from an artifact, a model and a profile: the command line, and a systemd unit that runs it.

Quoting is that of systemd.service(5), "COMMAND LINES", and systemd.unit(5), "SPECIFIERS".
"""

from __future__ import annotations

import re
import shlex
import struct
from collections.abc import Mapping
from pathlib import Path

import msgspec

from sparkbuild import handover
from sparkbuild.artifact.manifest import Manifest
from sparkbuild.catalog.switches import Switches
from sparkbuild.errors import FindingError, MissingError, UsageError
from sparkbuild.serving.switches import command

_HEAD = 4096  # bytes of a model file that are read
_STRING = 8  # the type of a text in GGUF
_FREE = 1024  # ports from here on are for everybody
_FORMS = {
    "port": ("a port", r"\d{1,5}"),
    "whole": ("a whole number", r"-?\d{1,9}"),
    "number": ("a number", r"-?\d{1,9}(\.\d{1,9})?"),
}
_WORDS = {"true": "on", "false": "off"}


class Service(msgspec.Struct, frozen=True):
    """What serves a model: the words of the command, its environment, the unit, and what to know of it."""

    profile: str
    command: tuple[str, ...]
    environment: dict[str, str]
    unit: str
    notes: tuple[str, ...]


def service(
    manifest: Manifest,
    folder: Path,
    model: Path,
    profile: handover.Profile,
    rules: Switches,
    user: str,
) -> Service:
    """Return how the artifact in ``folder`` serves ``model`` with a profile, as ``user``.

    Raises FindingError for what this build can not do, UsageError for a model that is none, MissingError
    where it is not known which switches the server has.
    """
    name = f"{manifest.engine.name}@{manifest.key[:12]}"
    tool = next((t for t in manifest.run.tools if t.role == "server"), None)
    if not tool:
        raise FindingError(f"{name} has no server", where=str(folder), remedy=_other(manifest))
    if not tool.switches:
        raise MissingError(
            f"the switches of {name}'s server are {tool.learned}",
            where=tool.path,
            remedy="build it where qemu-user or the machine itself can run it",
        )
    made = command(tool, profile.name, profile.settings, rules, manifest.verdicts)
    architecture = model_architecture(model)
    wrong = [*made.refused, *(f"its server has no switch for {n}" for n in made.left_out)]
    wrong += _malformed(profile.settings, rules)
    if next((m.state for m in manifest.verdicts.models if m.name == architecture), "") == "absent":
        wrong.append(f"it does not know the model architecture {architecture}")
    if wrong:
        raise FindingError(
            f"{name} can not do all of the profile {profile.name}",
            where=str(folder),
            remedy="another build or profile, or --set NAME= to leave a setting out",
            output="\n".join(wrong),
        )
    words = (str(folder / tool.path), *(w.replace("{model}", str(model)) for w in made.words))
    environment = manifest.run.environment | profile.environment
    return Service(
        profile=profile.name,
        command=words,
        environment=environment,
        unit=_unit(
            f"{manifest.engine.title}: {model.name}, {profile.name}",
            name,
            words,
            environment,
            user,
            low_port=any(w.isdecimal() and int(w) < _FREE for w in (profile.settings.get("port", ""),)),
        ),
        notes=tuple(_notes(manifest, profile.settings, architecture)),
    )


def _malformed(settings: Mapping[str, str], rules: Switches) -> list[str]:
    """Return the settings at which a server would end at once: no number where it wants one."""
    found = []
    for rule in rules.switches:
        title, form = _FORMS.get(rule.takes, ("", ".*"))
        value = settings.get(rule.name, "")
        if value and not re.fullmatch(form, value, re.ASCII | re.DOTALL):
            found.append(f"{rule.name} takes {title}, not {value!r}")
    return found


def _other(manifest: Manifest) -> str:
    return "" if manifest.target.backend == "cuda" else "its CUDA build may have one"


def _notes(manifest: Manifest, settings: Mapping[str, str], architecture: str) -> list[str]:
    """Return what this build can do, but not as one might think."""
    found = []
    run, pair = manifest.run, (settings.get("cache_type_k", "f16"), settings.get("cache_type_v", "f16"))
    if manifest.target.backend == "cuda" and pair not in {(p.k, p.v) for p in run.pairs}:
        told = run.pairs_note or "what becomes of it is not known"
        found.append(f"a KV cache of {'/'.join(pair)} has no vector kernel in this build: {told}")
    if not architecture:
        found.append("the model's architecture could not be read")
    elif all(m.name != architecture for m in manifest.verdicts.models):
        found.append(f"whether this build knows the model architecture {architecture} is not known")
    if settings.get("host") in ("0.0.0.0", "::"):  # noqa: S104 - it is told, not done
        found.append("it listens on every address, without TLS or a password")
    if run.needs.cuda_major:
        found.append(
            f"it needs CUDA {run.needs.cuda_major}'s libraries on the loader's path"
            + (f" and a driver of branch {run.needs.driver} or newer" if run.needs.driver else "")
        )
    return found


def with_settings(profile: handover.Profile, changed: Mapping[str, str], rules: Switches) -> handover.Profile:
    """Return a profile with settings of a server of one's own; an empty value takes one away."""
    known = {rule.name for rule in rules.switches if not rule.roles or "server" in rule.roles} - {"model"}
    for name in changed:
        if name not in known:
            raise UsageError(
                f"a server has no setting {name!r}",
                where="--set",
                remedy=f"one of: {', '.join(sorted(known))}",
            )
    own = {name: _WORDS.get(value, value) for name, value in changed.items()}
    merged = {n: v for n, v in (profile.settings | own).items() if v}
    return msgspec.structs.replace(profile, settings=merged)


def model_architecture(path: Path) -> str:
    """Return a GGUF file's general.architecture, "" where it is not its first key.

    The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Raises UsageError where the file
    can not be read or is no GGUF.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError(0, "it is no file")  # noqa: TRY301 - told as the others
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as problem:
        raise UsageError(
            f"cannot read the model: {problem.strerror}", where=str(path), remedy="name a GGUF file"
        ) from problem
    if head[:4] != b"GGUF":
        raise UsageError("the model is no GGUF file", where=str(path), remedy="name a GGUF file")
    try:
        (length,) = struct.unpack_from("<Q", head, 24)  # after magic, version and two counts
        key, place = head[32 : 32 + length], 32 + length
        kind, size = struct.unpack_from("<IQ", head, place)
    except (struct.error, OverflowError):  # a length that no file has
        return ""
    value = head[place + 12 : place + 12 + size]
    if key != b"general.architecture" or kind != _STRING or len(value) != size:
        return ""
    return value.decode(errors="replace")


def _unit(
    title: str,
    name: str,
    words: tuple[str, ...],
    environment: Mapping[str, str],
    user: str,
    *,
    low_port: bool,
) -> str:
    # No PrivateTmp, ProtectHome: model and store may lie there, and CUDA's MPS is reached through /tmp.
    lines = [
        f"# {name}, by sparkbuild unit. The switches are those of this build: print it anew for another.",
        f"# By hand: {shlex.join([*(f'{n}={v}' for n, v in environment.items()), *words])}",
        "[Unit]",
        f"Description={_plain(title)}",
        "Wants=network-online.target",
        "After=network-online.target",
        "",
        "[Service]",
        f"User={_plain(user)}",
        *(f"Environment={_quoted(f'{n}={v}')}" for n, v in environment.items()),
        f"ExecStart={' '.join([_quoted(words[0]), *(_quoted(w).replace('$', '$$') for w in words[1:])])}",
        "Restart=on-failure",
        "RestartSec=5",
        "NoNewPrivileges=yes",
        "ProtectSystem=full",
        *(["AmbientCapabilities=CAP_NET_BIND_SERVICE"] if low_port else []),
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    if not text.isprintable():
        raise UsageError(
            "control characters do not go into a unit", where=ascii(text), remedy="take them out"
        )
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    """Return a word that systemd takes as it is: no specifiers, no splitting."""
    text = _plain(word).replace("\\", "\\\\").replace('"', '\\"')
    safe = text and all(c.isalnum() or c in "-_./:=,+@%$" for c in text)
    return text if safe else f'"{text}"'
