"""params.yaml has the form that DVC itself writes: an override changes the lines of its own key, and no other."""

import functools
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from tests.conftest import ROOT

TEXT = (ROOT / "params.yaml").read_text()


def find_lines(text: str) -> dict[str, range]:
    """The lines of every key that holds a value, such as train.epochs."""

    def walk(section, prefix: str) -> None:
        for key, value in section.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            else:
                first, entries = section.lc.key(key)[0], len(value) if isinstance(value, list) else 0
                found[prefix + key] = range(first, first + 1 + entries)

    found: dict[str, range] = {}
    walk(YAML().load(text), "")
    return found


def split(text: str) -> tuple[dict[str, list[str]], list[str]]:
    """The lines of every key, and all others: sections, blank lines, comments."""
    lines, found = text.splitlines(), find_lines(text)
    taken = {number for own in found.values() for number in own}
    others = [line for number, line in enumerate(lines) if number not in taken]
    return {key: [lines[number] for number in own] for key, own in found.items()}, others


def read(text: str) -> dict:
    """Value by key."""
    values = YAML(typ="safe").load(text)
    return {key: functools.reduce(dict.__getitem__, key.split("."), values) for key in KEYS}


def write(value) -> str:
    """A value in the grammar of overrides."""
    if isinstance(value, list):
        return f"[{','.join(map(write, value))}]"
    return "null" if value is None else str(value)


def change(value):
    """Another value of the same kind; whether it is allowed does not matter here."""
    if isinstance(value, list):
        return [*value, change(value[0])]
    return "other" if isinstance(value, str) else 7 if value is None else 2 * value + 1


def override(folder: Path, *overrides: str) -> str:
    path = folder / "params.yaml"
    path.write_text(TEXT)
    apply_overrides(path, list(overrides))
    return path.read_text()


KEYS = list(find_lines(TEXT))
VALUES = read(TEXT)


def test_the_same_values_change_nothing(tmp_path):
    assert override(tmp_path, *(f"{key}={write(value)}" for key, value in VALUES.items())) == TEXT


@pytest.mark.parametrize("section", dict.fromkeys(key.partition(".")[0] for key in KEYS))
def test_overrides_change_the_lines_of_their_keys_alone(tmp_path, section):
    wanted = {key: change(value) for key, value in VALUES.items() if key.partition(".")[0] == section}
    text = override(tmp_path, *(f"{key}={write(value)}" for key, value in wanted.items()))
    (before, others), (after, others_after) = split(TEXT), split(text)
    assert others_after == others and list(after) == list(before)
    assert read(text) == VALUES | wanted
    for key in before:
        (first, *entries), (new_first, *new_entries) = before[key], after[key]
        assert first.partition("#")[2] == new_first.partition("#")[2]
        if key not in wanted:
            assert after[key] == before[key]
        elif entries:
            assert (new_first, new_entries[:-1]) == (first, entries)
        else:
            assert new_first != first


@pytest.mark.parametrize("written", ["seeds=[0,1,2,3]", "seeds=[5]", "baseline.percents=[10]"])
def test_a_list_gets_longer_and_shorter_in_its_place(tmp_path, written):
    key, _, entries = written.partition("=")
    lines, own, indent = TEXT.splitlines(), find_lines(TEXT)[key], "  " * key.count(".")
    expected = [f"{indent}- {entry}" for entry in entries[1:-1].split(",")]
    assert override(tmp_path, written).splitlines() == lines[: own[1]] + expected + lines[own[-1] + 1 :]


def test_an_override_of_one_value_changes_one_line(tmp_path):
    assert override(tmp_path, "clip=0.5") == TEXT.replace("\nclip: 1.0 ", "\nclip: 0.5 ", 1) != TEXT


def test_a_variant_more_or_less_is_its_lines_more_or_less(tmp_path):
    """What `-S +mobilenetv2.variants.gelu.activation=gelu` and `-S ~mobilenetv2.variants.plain` leave."""
    study = TEXT[TEXT.index("\nmobilenetv2:") :]
    more = study.replace("\n  seeds:", "\n    gelu:\n      activation: gelu\n  seeds:", 1)
    assert override(tmp_path, "+mobilenetv2.variants.gelu.activation=gelu") == TEXT.replace(study, more)
    fewer = study.replace("    plain: {}\n", "", 1)
    assert override(tmp_path, "~mobilenetv2.variants.plain") == TEXT.replace(study, fewer) != TEXT
