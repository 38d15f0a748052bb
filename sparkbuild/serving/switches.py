"""Find out how this build's own tools spell each setting, and write profiles as their command lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from sparkbuild import handover
from sparkbuild.catalog.records import Recipe
from sparkbuild.catalog.switches import ProfileFile, Switches
from sparkbuild.inspection.features import Verdicts
from sparkbuild.inspection.help import Help, parse_help
from sparkbuild.inspection.runtime import Answer

_OFF = ("0", "off")
_WHOLE = ("f32", "f16", "bf16")  # cache types of V that these engines take without FlashAttention


def tools(recipe: Recipe, answers: Mapping[str, Answer], rules: Switches) -> tuple[handover.Tool, ...]:
    """Return the tools of these roles, each with the switches that its answer to --help proves.

    A tool whose help names no options has those of the role that the recipe says it shares its options with.
    """
    roles = {role: target for role, target in recipe.roles.items() if role in answers}
    helps = {role: _help(answer) for role, answer in answers.items()}
    found = []
    for role, target in roles.items():
        source = role if helps[role][0].options else recipe.options_of.get(role, role)
        known, learned = helps.get(source, helps[role])
        if source != role and source in roles:
            learned = f"{learned} of {roles[source]}, whose options it takes: its own names none"
        found.append(handover.Tool(role, f"bin/{target}", _switches(rules, role, known), learned))
    return tuple(found)


def _help(answer: Answer) -> tuple[Help, str]:
    """Return a tool's help and where it is from; some tools end with an error after it."""
    known = parse_help(answer.output)
    if known.options:
        return known, "--help"
    return known, f"not known: {answer.reason or 'its --help names no options'}"


def _switches(rules: Switches, role: str, known: Help) -> tuple[handover.Switch, ...]:
    """Return for each setting and value the first spelling that the help bears out."""
    found: dict[tuple[str, str], handover.Switch] = {}
    for rule in rules.switches if known.options else ():
        if rule.roles and role not in rule.roles:
            continue
        for spelling in rule.spellings:
            if (rule.name, spelling.value) not in found and _fits(spelling.words, known):
                allowed = known.values.get(spelling.words[0], ()) if "{value}" in spelling.words else ()
                found[rule.name, spelling.value] = handover.Switch(
                    rule.name, spelling.value, spelling.words, allowed
                )
    return tuple(found.values())


def _fits(words: Sequence[str], known: Help) -> bool:
    """Return whether a tool has the option, and lists the value where it is a literal one.

    An option whose values are listed is not a flag.
    """
    if not words:
        return True
    option, *value = words
    listed = known.values.get(option, ())
    if value == ["{value}"]:
        return option in known.options
    return option in known.options and (value[0] in listed if value else not listed)


def commands(
    found: Sequence[handover.Tool], profiles: Iterable[handover.Profile], rules: Switches, verdicts: Verdicts
) -> tuple[handover.Command, ...]:
    """Return every profile as each tool that loads a model takes it, and what this build can not do of it."""
    return tuple(
        command(tool, profile.name, profile.settings, rules, verdicts)
        for profile in profiles
        for tool in found
        if any(s.name == "model" for s in tool.switches)
    )


def command(
    tool: handover.Tool, profile: str, settings: Mapping[str, str], rules: Switches, verdicts: Verdicts
) -> handover.Command:
    """Return settings as a tool takes them: those that concern its role, the model before them all."""
    by_name = {rule.name: rule for rule in rules.switches}
    able: dict[str, str] = {"model": "{model}"}
    refused: list[str] = []
    for name, value in settings.items():
        rule = by_name.get(name)
        if rule and rule.roles and tool.role not in rule.roles:
            continue
        state = verdicts.state(rule.needs) if rule and rule.needs and value not in _OFF else "present"
        if rule and state != "present":
            refused.append(f"{name} {value} needs {rule.needs}, which is {state} in this build")
        else:
            able[name] = value
    if settings.get("flash_attention") == "off" and settings.get("cache_type_v", "f16") not in _WHOLE:
        refused.append(f"cache_type_v {settings['cache_type_v']} needs flash_attention, which is off")
    made = handover.spell(tool, profile, able)
    return msgspec.structs.replace(made, refused=(*refused, *made.refused))


def profile_of(file: ProfileFile) -> handover.Profile:
    """Return a profile as it is handed over."""
    return handover.Profile(file.name, file.title, file.words, dict(file.environment))
