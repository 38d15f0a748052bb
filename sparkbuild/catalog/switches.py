"""How the tools of a family of engines spell their settings, and profiles: settings that belong together.

The TOML files in recipes/switches/ and recipes/profiles/ decode into these; docs/handover.md explains each.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from sparkbuild.catalog.records import Name, Record, Text

Role = Name
Setting = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]*$(?!\n)", max_length=64)]


class Spelling(Record, frozen=True):
    """One way to spell a setting: the words of the command line, for this ``value`` or ("") for any.

    The first word is the option that the tool must have. {value} stands for the value; a literal word
    must be one of the values that the tool lists for the option. No words: the tool does so by itself.
    """

    words: tuple[str, ...]
    value: str = ""


class Rule(Record, frozen=True):
    """A setting; of its spellings the first that a tool knows is taken, for each value.

    ``roles`` are the tools that it concerns, none: all. ``needs`` is a feature that the build must have
    for any value but 0 and off. ``takes`` is the form of its value where that is a number.
    """

    name: Setting
    title: Text
    spellings: Annotated[tuple[Spelling, ...], msgspec.Meta(min_length=1)]
    roles: tuple[Role, ...] = ()
    needs: str = ""
    takes: Literal["", "port", "whole", "number"] = ""


class Switches(Record, frozen=True):
    """All settings of a family of engines."""

    schema: Literal[1]
    name: Name
    switches: tuple[Rule, ...]


class ProfileFile(Record, frozen=True):
    """Settings that belong together, by their names in Switches; true and false are on and off."""

    schema: Literal[1]
    name: Name
    title: Text
    settings: dict[Setting, bool | int | float | str]
    environment: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it

    @property
    def words(self) -> dict[str, str]:
        """The settings as words."""
        return {
            name: ("off", "on")[value] if isinstance(value, bool) else str(value)
            for name, value in self.settings.items()
        }
