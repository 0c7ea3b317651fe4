"""Literal tables of variants, name -> what it stands for."""

from collections.abc import Mapping
from typing import TypeVar

Entry = TypeVar("Entry")


def look_up(table: Mapping[str, Entry], kind: str, name: str) -> Entry:
    """The entry called `name`; ValueError with the names there are for any other."""
    if name not in table:
        raise ValueError(f"{kind} is {name!r}; it must be one of {', '.join(table)}")
    return table[name]
