"""Which commit is tried next and what is concluded: over real git, against brute force."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkbuild.bisect import Verdict, choose, judge, search, trials_left
from sparkbuild.errors import SourceError
from sparkbuild.source.history import candidates, common, describe
from sparkbuild.source.mirror import create
from sparkbuild.source.repository import Repository

Parents = list[list[int]]  # of each commit, by number; a commit's parents come before it


class History:
    """Commits with these parents, in a repository of their own."""

    def __init__(self, folder: Path, parents: Parents, subject: bytes = b"a commit") -> None:
        self.here = Repository(folder / "it.git", lender=str(folder))
        create(self.here.gitdir)
        stream = b"".join(_commit(n, p, subject) for n, p in enumerate(parents))
        _git(self.here.gitdir, "fast-import", "--quiet", f"--export-marks={folder / 'marks'}", data=stream)
        lines = (folder / "marks").read_text().splitlines()
        names = {int(mark[1:]): commit for mark, _, commit in (line.partition(" ") for line in lines)}
        self.ids = [names[n + 1] for n in range(len(parents))]

    def ranked(self, bad: str, goods: Sequence[str]) -> Sequence[str]:
        return candidates(self.here, bad, goods)


def _commit(number: int, parents: Sequence[int], subject: bytes) -> bytes:
    text = b"%s\n\n%d" % (subject, number)  # else equal parents would make one commit of two
    lines = [
        b"commit refs/heads/c%d" % number,
        b"mark :%d" % (number + 1),
        b"committer T <t@example.org> 1700000000 +0000",
        b"data %d\n%s" % (len(text), text),
    ]
    for place, parent in enumerate(parents):
        lines.append((b"merge :%d" if place else b"from :%d") % (parent + 1))
    return b"\n".join([*lines, b"", b""])


def _git(gitdir: Path, *words: str, data: bytes) -> None:
    env = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", "--git-dir", gitdir, *words], env=env, input=data, check=True)


def reached(parents: Parents, commit: int) -> set[int]:
    """Return a commit and all its ancestors."""
    found: set[int] = set()
    todo = [commit]
    while todo:
        if (here := todo.pop()) not in found:
            found.add(here)
            todo += parents[here]
    return found


@st.composite
def histories(draw: st.DrawFn) -> tuple[Parents, int, set[int]]:
    """Draw commits from 0 to the last, which has all others among its ancestors; a culprit, the mute."""
    parents: Parents = [[]]
    for number in range(1, draw(st.integers(2, 14))):
        parents.append(draw(st.lists(st.integers(0, number - 1), min_size=1, max_size=3, unique=True)))
    heads = set(range(len(parents))) - {p for ps in parents for p in ps}
    parents.append(sorted(heads))
    last = len(parents) - 1
    culprit = draw(st.integers(1, last))
    return parents, culprit, draw(st.sets(st.integers(1, last - 1)))


@given(histories())
def test_the_first_bad_commit_is_found_in_any_history(drawn: tuple[Parents, int, set[int]]) -> None:
    parents, culprit, mute = drawn
    last = len(parents) - 1
    bad = [culprit in reached(parents, n) for n in range(last + 1)]
    tried: list[int] = []
    with tempfile.TemporaryDirectory() as name:
        history = History(Path(name), parents)
        number = {commit: n for n, commit in enumerate(history.ids)}

        def test(commit: str, _left: int) -> Verdict:
            tried.append(number[commit])
            return "skipped" if tried[-1] in mute else "bad" if bad[tried[-1]] else "good"

        found = [number[c] for c in search(history.ids[0], history.ids[last], history.ranked, test)]
    assert len(tried) == len(set(tried))
    assert not {0, last} & set(tried)
    *others, worst = found
    assert culprit in found
    assert bad[worst]
    assert set(others) <= mute
    told = {n: bad[n] for n in (0, last, *tried) if n not in mute}
    possible = {
        c for c in range(1, last + 1) if all((c in reached(parents, n)) == b for n, b in told.items())
    }
    assert possible <= set(found), "a commit that what was seen allows is named"
    if not mute:
        assert found == [culprit]


@given(st.integers(1, 40), st.data())
def test_a_line_of_commits_takes_no_more_trials_than_announced(length: int, data: st.DataObject) -> None:
    culprit = data.draw(st.integers(1, length))
    left: list[int] = []

    def ranked(bad: str, goods: Sequence[str]) -> Sequence[str]:
        between = range(max(map(int, goods)) + 1, int(bad) + 1)
        return sorted(
            map(str, between), key=lambda c: -min(int(c) - between.start + 1, between.stop - 1 - int(c))
        )

    def test(commit: str, announced: int) -> Verdict:
        left.append(announced)
        return "bad" if int(commit) >= culprit else "good"

    assert search("0", str(length), ranked, test) == (str(culprit),)
    assert len(left) <= trials_left(length)
    assert left == sorted(left, reverse=True)


def test_skips_go_ever_farther() -> None:
    ranked = [str(n) for n in range(20)]
    skipped: set[str] = set()
    chosen: list[int] = []
    while len(chosen) < 5:
        commit = choose(ranked, "19", skipped)
        assert commit
        skipped.add(commit)
        chosen.append(int(commit))
    assert chosen == [0, 1, 3, 6, 11]
    assert choose(["a", "b"], "b", {"a"}) is None


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        *((0, "good"), (1, "bad"), (124, "bad"), (125, "skipped"), (126, "bad"), (127, "bad")),
        *((128, None), (139, None), (255, None), (-9, None)),
    ],
)
def test_exit_codes_mean_what_they_mean_to_git(code: int, verdict: Verdict | None) -> None:
    assert judge(code) == verdict


def test_what_is_known_of_a_commit(tmp_path: Path) -> None:
    history = History(tmp_path, [[], [0], [1]], b"caf\xc3\xa9\n\nMore words.\n")
    found = describe(history.here, history.ids[2])
    assert (found.subject, found.build_number) == ("café", 3)
    assert found.authored.startswith("2023-11-14T22:13:20")
    assert common(history.here, history.ids[0], history.ids[2]) == history.ids[0]


@pytest.mark.threat(
    "git", "a subject with escapes, overrides, bytes of no charset, 1 MB", "shown plain and short"
)
def test_a_subject_can_not_steer_a_terminal(tmp_path: Path) -> None:
    evil = "\x1b]0;pwned\x07 \u202eabc \x9b31m ".encode() + b"\xff\xfe" + b"x" * 1_000_000
    history = History(tmp_path, [[]], evil)
    subject = describe(history.here, history.ids[0]).subject
    assert subject.isprintable()
    assert len(subject) == 121


def test_commits_without_a_common_past(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    ours, other = History(tmp_path, [[]]), History(tmp_path / "b", [[]], b"another").ids[0]
    assert common(ours.here, ours.ids[0], other) == ""
    with pytest.raises(SourceError, match="git failed"):
        candidates(ours.here, other, ours.ids)
