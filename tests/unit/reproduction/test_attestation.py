from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sparkbuild import process
from sparkbuild.errors import UsageError
from sparkbuild.reproduction.attestation import statement
from sparkbuild.reproduction.records import FileComparison, Level, Rebuild, Reproduction
from tests.conftest import digest
from tests.reproductions import GOOD, SAME, hostile, incomparable, reproduction_of

_KEYGEN = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="ssh-keygen is not installed")
RESULTS = ("passedTests", "warnedTests", "failedTests")


def told(report: Reproduction) -> tuple[Any, Any]:
    whole = json.loads(statement(report))
    return whole, whole["predicate"]


def test_a_statement_names_subjects_tests_and_who_saw_it() -> None:
    whole, predicate = told(reproduction_of())
    manifest = {"name": "manifest.json", "digest": {"sha256": digest("manifest")}}
    assert whole["_type"] == "https://in-toto.io/Statement/v1"
    assert whole["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    assert whole["subject"] == [
        manifest,
        {"name": "bin/toy-cli", "digest": {"sha256": digest("cli")}},
        {"name": "bin/toy-server", "digest": {"sha256": digest("server")}},
    ]
    assert predicate["configuration"] == [manifest, {"name": "source", "digest": {"gitCommit": "a" * 40}}]
    assert predicate["result"] == "WARNED"
    assert [predicate[name] for name in RESULTS] == [["bin/toy-cli"], ["bin/toy-server"], []]
    ours = predicate["sparkbuild_reproduction"]
    assert (ours["rebuilt_by"], ours["rebuilt_on"]) == ("somebody@example.invalid", "Linux 7 x86_64")
    assert (ours["started"], ours["verdict"]) == ("2026-01-02T03:04:05Z", "stripped")
    assert (ours["normaliser"], ours["notes"]) == ("toy-strip 1", ["the network was not cut off"])
    assert [[v["name"] for v in r["varied"]] for r in ours["rebuilds"]] == [["path"], ["path", "umask"]]


def one(file: FileComparison) -> Reproduction:
    return reproduction_of(verdict=file.level, rebuilds=(Rebuild((), file.level, (file,), 1.0),))


@pytest.mark.parametrize(
    ("level", "result", "where"),
    [
        ("identical", "PASSED", "passedTests"),
        ("stripped", "WARNED", "warnedTests"),
        ("device code", "FAILED", "failedTests"),
        ("features", "FAILED", "failedTests"),
        ("different", "FAILED", "failedTests"),
    ],
)
def test_only_an_identical_file_passed(level: Level, result: str, where: str) -> None:
    rebuilt = digest("cli") if level == "identical" else digest("another")
    _, predicate = told(one(FileComparison("bin/toy-cli", digest("cli"), rebuilt, level)))
    assert predicate["result"] == result
    assert [(name, predicate[name]) for name in RESULTS if predicate[name]] == [(where, ["bin/toy-cli"])]


def test_a_word_does_not_stand_against_the_hashes() -> None:
    _, predicate = told(one(FileComparison("bin/toy-cli", digest("cli"), digest("x"), "identical")))
    assert (predicate["result"], predicate["failedTests"]) == ("FAILED", ["bin/toy-cli"])


def test_the_worst_rebuild_decides_and_silence_is_no_pass() -> None:
    silent = Rebuild((), "identical", (), 1.0)
    _, predicate = told(reproduction_of(verdict="identical", rebuilds=(GOOD, silent)))
    assert (predicate["result"], predicate["failedTests"]) == ("FAILED", ["bin/toy-cli", "bin/toy-server"])
    _, predicate = told(
        reproduction_of(verdict="identical", rebuilds=(Rebuild((), "features", (SAME,), 1.0),))
    )
    assert (predicate["result"], predicate["passedTests"]) == ("FAILED", ["bin/toy-cli"])


def test_a_file_of_the_rebuild_alone_is_no_subject() -> None:
    whole, predicate = told(one(FileComparison("bin/new", "", digest("new"), "different")))
    assert [s["name"] for s in whole["subject"]] == ["manifest.json"]
    assert predicate["failedTests"] == ["bin/new"]


def test_an_unknown_commit_is_not_claimed() -> None:
    assert len(told(reproduction_of(commit=""))[1]["configuration"]) == 1


@pytest.mark.parametrize("report", [incomparable(), reproduction_of(verdict="identical", rebuilds=())])
def test_without_a_comparison_there_is_no_statement(report: Reproduction) -> None:
    with pytest.raises(UsageError) as caught:
        statement(report)
    assert caught.value.remedy


def test_the_bytes_are_stable_ascii_json() -> None:
    raw = statement(reproduction_of())
    assert raw == json.dumps(json.loads(raw), indent=2, sort_keys=True).encode() + b"\n"
    turned = tuple(
        Rebuild(r.varied, r.level, r.files[::-1], r.wall_seconds) for r in reproduction_of().rebuilds
    )
    assert raw == statement(reproduction_of(rebuilds=turned))
    assert statement(hostile(reproduction_of())).isascii()


@_KEYGEN
def test_a_signature_holds_until_a_byte_changes(tmp_path: Path) -> None:
    key, file, allowed = tmp_path / "key", tmp_path / "statement.json", tmp_path / "allowed"
    raw = statement(reproduction_of())
    file.write_bytes(raw)
    process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "somebody", "-f", key])
    process.run(["ssh-keygen", "-Y", "sign", "-n", "sparkbuild", "-f", key, file])
    allowed.write_text(f'somebody namespaces="sparkbuild" {key.with_suffix(".pub").read_text()}')
    verify = ["ssh-keygen", "-Y", "verify", "-n", "sparkbuild", "-I", "somebody"]
    verify += ["-f", str(allowed), "-s", f"{file}.sig"]
    assert 'Good "sparkbuild" signature' in process.run(verify, stdin=raw.decode()).output
    flipped = bytearray(raw)
    flipped[len(raw) // 2] ^= 1
    with pytest.raises(process.ProcessError):
        process.run(verify, stdin=flipped.decode())
