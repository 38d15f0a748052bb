"""How a compiler's trial is shown: each flag with each feature, the verdict, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparkbuild.cli import render
from sparkbuild.cli.say import say

if TYPE_CHECKING:
    from sparkbuild.toolchain import FeatureProof
    from sparkbuild.toolchain.fault import CompilerTrial, FlagTrial

_STYLE = {"good": "green", "lost": "red", "lies": "red", "refused": "yellow", "not run": "dim"}


def compiler(trial: CompilerTrial, *, as_json: bool) -> None:
    """Show what a compiler made of each flag, and what to do."""
    from rich.text import Text  # noqa: PLC0415

    if as_json:
        render.document("verify-flags", compiler=trial)
        return
    features = list(dict.fromkeys(p.feature for t in trial.trials for p in t.proofs))
    rows = [
        (t.flags, *(cell(t, f) for f in features), Text(t.verdict, style=_STYLE[t.verdict]), _says(t))
        for t in trial.trials
    ]
    render.table(
        f"{trial.version}, CPU: {trial.cpuinfo}",
        ("flag", *features, "verdict", "the compiler says"),
        rows,
        note="Each feature: its macro and its code; in brackets where it does not count for the flag.",
    )
    say(f"\nfault in native detection: {trial.fault}: {trial.reason}")
    say(f"remedy: {trial.remedy}")


def cell(trial: FlagTrial, feature: str) -> str:
    """Return what was proved of one feature under one flag, in brackets where it does not count."""
    found = next((_proved(p) for p in trial.proofs if p.feature == feature), "-")
    return found if feature in trial.wanted or found == "-" else f"({found})"


def _proved(proof: FeatureProof) -> str:
    if proof.macro == proof.code:
        return "yes" if proof.holds else "no"
    return "macro only" if proof.macro else "code only"


def _says(trial: FlagTrial) -> str:
    """Return what the compiler said of the flag, or else of the first code that a macro had promised."""
    broken = (p.error.partition("error: ")[2] for p in trial.proofs if p.macro and not p.code)
    return trial.said or next(broken, "")
