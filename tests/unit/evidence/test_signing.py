from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sparkbuild.errors import MissingError, UsageError
from sparkbuild.evidence import signing
from sparkbuild.evidence.signing import NAMESPACE, check, sign

pytestmark = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="no ssh-keygen (openssh-client)")

_ONE = "one@example.invalid"
_DATA = b'{"a": 1}\r\n\xff\x00'  # exact bytes, whatever they are


def made_key(path: Path, passphrase: str = "") -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "", "-f", path], check=True)
    return path


def public(key: Path) -> str:
    return key.with_name(f"{key.name}.pub").read_text().strip()


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """Return a key without a passphrase."""
    return made_key(tmp_path / "key one")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a file to sign."""
    (tmp_path / "an artifact").mkdir()
    path = tmp_path / "an artifact" / "manifest.json"
    path.write_bytes(_DATA)
    return path


@pytest.fixture
def allowed(tmp_path: Path, key: Path) -> Path:
    """Return a file that allows the key."""
    path = tmp_path / "allowed signers"
    path.write_text(f'# who\n{_ONE} namespaces="{NAMESPACE}" {public(key)}\n')
    return path


def test_what_was_signed_is_good_and_says_by_whom(path: Path, key: Path, allowed: Path) -> None:
    signature = sign(path, key)
    assert signature == path.with_name("manifest.json.sig")
    assert sorted(p.name for p in path.parent.iterdir()) == ["manifest.json", "manifest.json.sig"]
    assert path.read_bytes() == _DATA
    fingerprint = subprocess.run(["ssh-keygen", "-l", "-f", key], check=True, capture_output=True, text=True)
    for identity in (None, _ONE):
        found = check(path, allowed, identity)
        assert (found.verdict, found.good, found.signer) == ("good", True, _ONE)
        assert found.key in fingerprint.stdout.split()


def test_the_signature_is_one_that_others_can_check(path: Path, key: Path, allowed: Path) -> None:
    signature = sign(path, key)
    words: list[str | Path] = [
        "ssh-keygen",
        "-Y",
        "verify",
        "-n",
        NAMESPACE,
        "-I",
        _ONE,
        "-f",
        allowed,
        "-s",
        signature,
    ]
    assert subprocess.run(words, check=False, input=_DATA, capture_output=True).returncode == 0


def test_signing_again_replaces_the_signature(path: Path, key: Path, allowed: Path) -> None:
    sign(path, key)
    path.write_bytes(b"new")
    assert check(path, allowed).verdict == "other bytes"
    sign(path, key)
    assert check(path, allowed).good


@pytest.mark.threat("manifests", "one bit of what was signed", "the signature does not hold")
@pytest.mark.parametrize("place", [0, len(_DATA) - 1], ids=["first", "last"])
def test_one_bit_of_the_file(path: Path, key: Path, allowed: Path, place: int) -> None:
    sign(path, key)
    changed = bytearray(_DATA)
    changed[place] ^= 1
    path.write_bytes(changed)
    found = check(path, allowed)
    assert (found.verdict, found.good) == ("other bytes", False)


def _absent(path: Path, _: Path, __: Path) -> None:
    signing.signature_of(path).unlink()


def _folder(path: Path, _: Path, __: Path) -> None:
    signing.signature_of(path).unlink()
    signing.signature_of(path).mkdir()


def _garbage(path: Path, _: Path, __: Path) -> None:
    signing.signature_of(path).write_bytes(b"-----BEGIN SSH SIGNATURE-----\nAAAA\n")


def _huge(path: Path, _: Path, __: Path) -> None:
    signing.signature_of(path).write_bytes(bytes(1 << 20))


def _cut(path: Path, _: Path, __: Path) -> None:
    whole = signing.signature_of(path).read_bytes()
    signing.signature_of(path).write_bytes(whole[: len(whole) // 2])


def _swapped(path: Path, key: Path, _: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"other")
    sign(other, key).replace(signing.signature_of(path))


def _of_git(path: Path, key: Path, _: Path) -> None:
    signing.signature_of(path).unlink()
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-n", "git", "-f", key, path], check=True)


def _by_another(path: Path, key: Path, _: Path) -> None:
    sign(path, made_key(key.with_name("two")))


def _not_for_this(_: Path, key: Path, allowed: Path) -> None:
    allowed.write_text(f'{_ONE} namespaces="git" {public(key)}\n')


def _expired(_: Path, key: Path, allowed: Path) -> None:
    allowed.write_text(f'{_ONE} valid-before="20200101" {public(key)}\n')


def _not_yet(_: Path, key: Path, allowed: Path) -> None:
    allowed.write_text(f'{_ONE} valid-after="20990101" {public(key)}\n')


def _no_signers(_: Path, __: Path, allowed: Path) -> None:
    allowed.unlink()


def _broken_signers(_: Path, __: Path, allowed: Path) -> None:
    allowed.write_text(f"{_ONE} no key at all\n")


def _empty_signers(_: Path, __: Path, allowed: Path) -> None:
    allowed.write_text("")


_BAD: dict[str, tuple[Callable[[Path, Path, Path], None], str, str]] = {
    "no signature": (_absent, "no signature", "manifest.json.sig"),
    "a folder for a signature": (_folder, "no signature", "manifest.json.sig"),
    "garbage": (_garbage, "not a signature", ""),
    "a huge file": (_huge, "not a signature", "64 KiB"),
    "cut short": (_cut, "not a signature", ""),
    "another file's": (_swapped, "other bytes", "not what was signed"),
    "made for git": (_of_git, "wrong namespace", NAMESPACE),
    "by another": (_by_another, "another's key", "SHA256:"),
    "may sign other things": (_not_for_this, "not allowed", _ONE),
    "no longer": (_expired, "expired", "expired"),
    "not yet": (_not_yet, "expired", "not yet valid"),
    "no allowed signers": (_no_signers, "unreadable signers", "No such file"),
    "broken allowed signers": (_broken_signers, "unreadable signers", "invalid key"),
    "nobody is allowed": (_empty_signers, "another's key", "SHA256:"),
}


@pytest.mark.threat(
    "manifests",
    "signatures that are cut, huge, swapped, of git, by others, expired, not yet valid",
    "each refused with its reason",
)
@pytest.mark.parametrize(("change", "verdict", "why"), _BAD.values(), ids=_BAD.keys())
@pytest.mark.parametrize("identity", [None, _ONE], ids=["anybody", "one"])
def test_a_signature_that_does_not_hold_says_why(
    path: Path,
    key: Path,
    allowed: Path,
    identity: str | None,
    change: Callable[[Path, Path, Path], None],
    verdict: str,
    why: str,
) -> None:
    sign(path, key)
    change(path, key, allowed)
    found = check(path, allowed, identity)
    assert (found.verdict, found.good) == (verdict, False)
    assert why in found.why


def test_another_identity_than_the_one_wanted(path: Path, key: Path, allowed: Path) -> None:
    sign(path, key)
    for name in ("two@example.invalid", "-x", "", "one"):
        found = check(path, allowed, name)
        assert (found.verdict, found.signer) == ("another's key", _ONE)
        assert _ONE in found.why


def test_one_key_of_several_people(path: Path, key: Path, allowed: Path) -> None:
    allowed.write_text(f'a@x namespaces="git" {public(key)}\nb@x,*@y {public(key)}\n')
    sign(path, key)
    assert check(path, allowed, "b@x").good
    assert check(path, allowed, "any@y").good
    assert check(path, allowed, "a@x").verdict == "not allowed"
    assert check(path, allowed).verdict == "not allowed"  # ssh-keygen finds the first entry only


def test_a_key_with_a_passphrase_asks_nobody(path: Path, tmp_path: Path) -> None:
    path.write_text("secret\n")  # what ssh-keygen would take for an answer
    with pytest.raises(UsageError, match="passphrase") as caught:
        sign(path, made_key(tmp_path / "locked", "secret"))
    assert "ssh-add" in caught.value.remedy
    assert not signing.signature_of(path).exists()


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run an ssh-agent and point to it."""
    where = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", where], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()  # it listens
    monkeypatch.setenv("SSH_AUTH_SOCK", str(where))
    yield
    process.terminate()
    process.communicate()


@pytest.mark.usefixtures("agent")
def test_an_agents_key_signs_by_its_public_half(path: Path, key: Path, allowed: Path) -> None:
    subprocess.run(["ssh-add", "-q", key], check=True, env=dict(os.environ))
    key.unlink()
    sign(path, key.with_name(f"{key.name}.pub"))
    assert check(path, allowed).signer == _ONE


def test_a_public_key_without_an_agent(path: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    key.unlink()
    with pytest.raises(UsageError) as caught:
        sign(path, key.with_name(f"{key.name}.pub"))
    assert "agent" in caught.value.remedy


def test_absent_files_are_the_users_fault(path: Path, key: Path, allowed: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        sign(path, tmp_path / "absent")
    with pytest.raises(UsageError, match="No such file"):
        sign(tmp_path / "absent", key)
    with pytest.raises(UsageError, match="No such file"):
        check(tmp_path / "absent", allowed)


def test_without_ssh_keygen_it_says_what_to_install(
    path: Path, key: Path, allowed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign(path, key)
    monkeypatch.setattr(signing, "_TOOL", "no-such-ssh-keygen")  # it can not be taken away here
    for call in (lambda: sign(path, key), lambda: check(path, allowed)):
        with pytest.raises(MissingError) as caught:
            call()
        assert "openssh-client" in caught.value.remedy


def test_a_tool_that_waits_for_somebody_is_ended(
    path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "_PATIENCE", 0.0)  # two minutes, for a token that waits for a touch
    with pytest.raises(UsageError, match="no answer"):
        sign(path, key)
