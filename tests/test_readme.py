"""The front page's numbers are those of the committed results."""

import json
import re

from stages.lib.params import load_params
from stages.lib.results import tabulate
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def read(path: str) -> dict:
    return json.loads((ROOT / path).read_text())


def test_the_results_table_is_the_committed_metrics():
    keys = load_params(ROOT / "params.yaml").keys
    header, rows = tabulate({key: read(f"metrics/train/{key}.json") for key in keys})
    lines = ["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]]
    assert "\n".join(lines) in README, "the table should read:\n" + "\n".join(lines)


def test_the_weights_named_are_those_that_were_used():
    assert f"the weights are `{read('metrics/summary.json')['weights']}`" in README


def test_every_file_that_the_page_shows_or_links_exists():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_every_make_target_that_the_page_names_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:`|\$ )make ([a-z]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
