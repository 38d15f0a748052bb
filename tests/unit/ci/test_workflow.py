"""The local runner of workflow steps: real bash, and what GitHub documents of files and variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from ci import workflow
from ci.workflow import WorkflowError, evaluated, pairs


def run(folder: Path, steps: str, *words: str, more: str = "") -> int:
    """Run the steps (YAML, two blanks deep) as the only job of a workflow; ``more`` is of the whole file."""
    path = folder / "workflow.yml"
    path.write_text(f"{more}\njobs:\n  job:\n    env: {{LEVEL: job}}\n    steps:\n{steps}\n")
    return workflow.main([str(path), "job", *words])


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_steps_run_in_turn_and_uses_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    steps = """
      - uses: actions/checkout@v0
      - run: echo one
      - name: The second
        run: |
          echo two
          pwd
    """
    assert run(tmp_path, steps) == 0
    said = capfd.readouterr().out.splitlines()
    assert said == [
        "» 1. not run here: actions/checkout@v0",
        "» 2. echo one",
        "one",
        "» 3. The second",
        "two",
        str(tmp_path),
    ]


def test_a_failing_step_ends_the_job_with_its_code(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "      - run: exit 7\n      - run: echo never") == 7
    assert "never" not in capfd.readouterr().out.replace("echo never", "")


@pytest.mark.parametrize(("shell", "code"), [("", 0), ("        shell: bash\n", 1)])
def test_only_a_named_bash_has_pipefail(tmp_path: Path, shell: str, code: int) -> None:
    assert run(tmp_path, f"      - run: false | true\n{shell}") == code


def test_the_nearest_environment_wins(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    steps = """
      - run: echo "$WIDE $LEVEL"
      - run: echo "$WIDE $LEVEL $FLAG"
        env: {LEVEL: step, FLAG: true}
    """
    assert run(tmp_path, steps, more="env: {WIDE: all, LEVEL: workflow}") == 0
    said = capfd.readouterr().out
    assert "all job\n" in said
    assert "all step true\n" in said


def test_what_a_step_leaves_reaches_the_next(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    steps = """
      - id: first
        run: |
          mkdir tools && printf '#!/bin/sh\\necho from PATH' > tools/mine && chmod +x tools/mine
          echo "$PWD/tools" >> "$GITHUB_PATH"
          echo "KEPT=a=b" >> "$GITHUB_ENV"
          printf 'rows<<END\\n{\\n}\\nEND\\nplain=yes\\n' >> "$GITHUB_OUTPUT"
          echo "## Told" >> "$GITHUB_STEP_SUMMARY"
      - run: mine && echo "$KEPT $ROWS $PLAIN"
        env:
          ROWS: ${{ steps.first.outputs.rows }}
          PLAIN: ${{ steps.first.outputs.plain }}
    outputs:
      plain: ${{ steps.first.outputs.plain }}
    """
    assert run(tmp_path, steps) == 0
    said = capfd.readouterr().out
    assert "from PATH\na=b {\n} yes\n» output plain=yes\n" in said
    assert "» summary:\n## Told\n" in said


def test_values_are_given_by_hand(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    steps = """
      - run: echo "$ENGINE; $(pwd); $RUNNER_TEMP"
        working-directory: deep
        env:
          ENGINE: ${{ matrix.engine }}-${{needs.a-b.outputs.y}}
    """
    (tmp_path / "deep").mkdir()
    words = ["matrix.engine=$(touch x)", "needs.a-b.outputs.y=1=2", f"runner.temp={tmp_path}"]
    assert run(tmp_path, steps, *words) == 0
    assert f"\n$(touch x)-1=2; {tmp_path}/deep; {tmp_path}\n" in capfd.readouterr().out
    assert not (tmp_path / "deep" / "x").exists()


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("run: echo ${{ matrix.x }}", "no value for matrix.x: give matrix.x=VALUE"),
        ("run: echo ${{ fromJSON(x).y }}", "not understood here: ${{ fromJSON(x).y }}"),
        ("run: echo ${{ a.b || c.d }}", "not understood here"),
        ("{run: echo, if: always()}", "not understood here, of a step that runs: if"),
        ("{run: echo, continue-on-error: true}", "continue-on-error"),
        ("{run: echo, shell: pwsh}", "no shell 'pwsh' here"),
        ('run: echo alone >> "$GITHUB_ENV"', "neither NAME=VALUE nor NAME<<END: 'alone'"),
        ("""run: 'echo "a<<E" >> "$GITHUB_OUTPUT"'""", "a has no end 'E'"),
    ],
)
def test_what_is_not_understood_is_an_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], step: str, said: str
) -> None:
    assert run(tmp_path, f"      - {step}") == 2
    assert said in capfd.readouterr().err


def test_an_unknown_job_is_told_with_the_known_ones(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, "      - run: 'true'")
    assert workflow.main([str(tmp_path / "workflow.yml"), "other"]) == 2
    assert "no job 'other': job" in capfd.readouterr().err


@pytest.mark.parametrize("words", [[], ["file"], ["file", "job", "no-value"]])
def test_without_its_words_it_says_how(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert workflow.main(words) == 2
    assert "FILE JOB [KEY=VALUE...]" in capfd.readouterr().err


def test_expressions_and_pairs() -> None:
    assert evaluated("a${{ b.c }}${{b.c}}", {"b.c": "${{ d.e }}"}) == "a${{ d.e }}${{ d.e }}"
    with pytest.raises(WorkflowError):
        evaluated("${{ b['c'] }}", {})
    assert dict(pairs("a=<<\nb<<=\nx\n=\n")) == {"a": "<<", "b": "x"}
