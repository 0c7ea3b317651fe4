"""The pages: they are what the generator makes of the committed results, and all that they point to is there."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dvc.cli.parser import get_main_parser
from dvc.exceptions import DvcException

from stages.core.files import StageError
from stages.core.params import load_params
from stages.models.norms import frn
from stages.tools import page
from stages.tools.page import find_templates, render_page
from tests.conftest import committed_files

ROOT = committed_files()
TEMPLATES = [template.relative_to(ROOT).as_posix() for template in find_templates(ROOT)]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [ROOT / "README.md", *ROOT.glob("stages/**/README.md")])
LARGEST = 12_000  # bytes of the front page


def read(path: str) -> dict:
    return json.loads((ROOT / path).read_text())


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_committed_page_is_what_the_generator_makes_of_the_committed_results(template):
    text = (ROOT / template).with_suffix("").read_text(encoding="utf-8")
    assert text == render_page(ROOT / template, ROOT), "run `make page`, and commit what it writes"


def test_every_page_has_a_template_and_every_study_a_page():
    assert sorted(template.removesuffix(".j2") for template in TEMPLATES) == PAGES
    for study in ROOT.glob("stages/*/dvc.yaml"):
        assert f"stages/{study.parent.name}/README.md" in PAGES


def test_the_front_page_is_short():
    assert len((ROOT / "README.md").read_bytes()) <= LARGEST


def take_out_code(text: str) -> str:
    return re.sub(r"`[^`]*`", "`code`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def list_anchors(text: str) -> set[str]:
    """Of a page's headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def find_broken_links(path: Path) -> list[str]:
    """Targets of a page's links and pictures that are not there: files, and headings of pages."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", take_out_code(path.read_text(encoding="utf-8"))):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        other = path.parent / name if name else path
        if not other.exists() or anchor and anchor not in list_anchors(other.read_text(encoding="utf-8")):
            broken.append(target)
    return broken


@pytest.mark.parametrize("name", PAGES)
def test_everything_that_a_page_links_or_shows_exists(name):
    assert find_broken_links(ROOT / name) == []


def test_broken_links_are_found(tmp_path):
    (tmp_path / "other.md").write_text("# A heading, with 2 `words`\n```\n# no heading\n```\n")
    (tmp_path / "page.md").write_text(
        "# Here\n[a](other.md) [b](other.md#a-heading-with-2-words) [c](#here) ![d](https://x.org/y.png) `[e](no.md)`\n"
        "![f](gone.png) [g](other.md#no-heading) [h](#there) [i\nj](gone.md)\n"
    )
    assert find_broken_links(tmp_path / "page.md") == ["gone.png", "other.md#no-heading", "#there", "gone.md"]


def list_commands(program: str) -> list[str]:
    """What pages and templates tell a reader to type, in text or as a line of a console."""
    found = []
    for name in PAGES:
        text = (ROOT / name).read_text(encoding="utf-8")
        found += re.findall(rf"^\$ ((?:\w+=\S+ )*{program} .*?)(?:\s+#.*)?$", text, re.M)
        text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
        found += [" ".join(code.split()) for code in re.findall(rf"`((?:\w+=\S+ )*{program} [^`]+)`", text)]
    return sorted(set(found))


def test_every_make_target_that_the_pages_name_exists():
    makefile, commands = (ROOT / "Makefile").read_text(), list_commands("make")
    for command in commands:
        assert re.search(rf"^{command.split()[1]}:", makefile, re.M), command
    assert {"make repro", "make test", "make quick", "make page"} <= set(commands)


def test_dvc_understands_every_command_that_the_pages_name():
    commands = [command for command in list_commands("dvc") if "<" not in command]
    for command in commands:
        words = [word for word in shlex.split(command) if not re.match(r"[A-Z_]+=", word)]
        try:
            arguments = get_main_parser().parse_args(words[1:])
        except DvcException as error:
            pytest.fail(f"{command}: {error}")
        for target in getattr(arguments, "targets", None) or []:
            target = target.replace("/mine/", "/small_cnn/")  # which a reader copies
            file = target.partition(":")[0] if target.endswith(".yaml") else "dvc.yaml"
            assert (ROOT / file).exists() and (file == target or target.split("@")[0] in (ROOT / file).read_text())
    for named in ("dvc exp run -S clip=0.5", "dvc metrics diff", "dvc plots show"):
        assert named in commands


@pytest.fixture
def copy(tmp_path) -> Path:
    """The files that pages are made of, to be changed."""
    for folder in ("metrics", "plots", "stages"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.png", "*.py[co]"))
    for file in ("README.md.j2", "params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / file, tmp_path / file)
    return tmp_path


def test_what_a_page_says_follows_the_results(copy):
    """Of the reference run, FRN's accuracies and BatchNorm's change places, and so do their tests."""
    for mode in ("noclip", "clip"):
        first, second = (copy / f"metrics/reference/train/{norm}-{mode}.json" for norm in ("batchnorm", "frn"))
        kept = first.read_text()
        first.write_text(second.read_text())
        second.write_text(kept)
    seeds = copy / "plots/reference/statistics/seeds.csv"
    table = pd.read_csv(seeds)
    between = table["contrast"].str.startswith("BatchNorm - FRN")
    against = table["contrast"].str.startswith("LayerNorm - FRN")
    beside = table["contrast"].str.startswith("BatchNorm - LayerNorm")
    table.loc[between, "mean"] *= -1
    numbers = ["mean", "p_adjusted"]
    kept = table.loc[against, numbers].to_numpy()
    table.loc[against, numbers] = table.loc[beside, numbers].to_numpy()
    table.loc[beside, numbers] = kept * [-1, 1]
    table.to_csv(seeds, index=False)
    before, after = ((root / "README.md.j2", root) for root in (ROOT, copy))
    old, new = render_page(*before), render_page(*after)
    assert "Heads with FRN end below those with BatchNorm and LayerNorm, by 1.5 to 1.8 points" in old
    assert "Heads with BatchNorm end below those with LayerNorm and FRN, by 1.5 to 1.8 points" in new
    assert "Between LayerNorm and FRN no difference is found." in new
    assert "BatchNorm on a pooled vector was below the other norms in every seed" in new
    assert "nothing is recommended against FRN" in old and "nothing is recommended against FRN" not in new


def test_the_pages_durations_and_rows_are_those_of_the_files(copy):
    for file in (copy / "metrics/timing/mobilenetv2").glob("*.json"):
        file.unlink() if file.stem.endswith("report") else file.write_text('{"seconds": 60.0, "latency_ms": 1.25}')
    count = len(list((copy / "metrics/timing/mobilenetv2").glob("*.json")))
    (copy / "metrics/mobilenetv2/train/plain.json").write_text(
        '{"test_accuracy": 0.5, "test_accuracy_std": 0.01, "parameters": 1234, "multiply_adds": 5600000}'
    )
    text = render_page(copy / "stages/mobilenetv2/README.md.j2", copy)
    assert "| plain | 1,234 | 5.6 | 1.2 | 50.00 ± 1.00 |" in text
    assert f"mobilenetv2/dvc.yaml    # {count} minutes on" in text
    assert f"widths, kernels, expansions | {count} |" in render_page(copy / "README.md.j2", copy)


def test_a_missing_result_is_named(copy, monkeypatch):
    (copy / "metrics/cache_study/views.json").unlink()
    with pytest.raises(StageError, match=r"metrics/cache_study/views.json does not exist"):
        render_page(copy / "stages/cache_study/README.md.j2", copy)
    monkeypatch.chdir(copy)
    with pytest.raises(SystemExit, match=r"error: metrics/cache_study/views.json does not exist"):
        page.main()


def test_a_new_studys_page_needs_its_template_alone(copy, monkeypatch, capsys):
    """What the main study's page says of it: no other file is touched."""
    (copy / "stages/mine").mkdir()
    (copy / "metrics/mine").mkdir()
    (copy / "metrics/mine/summary.json").write_text('{"seeds": 7}')
    (copy / "stages/mine/README.md.j2").write_text(
        "# Mine\n{{ read('metrics/mine/summary.json').seeds }} seeds, {{ minutes('mine') }} min, {{ params.clip }}\n"
        "{{ table(['a', 'b'], [['1', '2']]) }}\n"
    )
    monkeypatch.chdir(copy)
    page.main()
    text = (copy / "stages/mine/README.md").read_text(encoding="utf-8")
    assert text.startswith("<!-- `make page` writes this file")
    assert text.endswith("# Mine\n7 seeds, - min, 1.0\n| a | b |\n| --- | --- |\n| 1 | 2 |\n")
    assert "stages/mine/README.md: 0." in capsys.readouterr().out


def test_frn_under_another_setting_is_the_committed_experiment():
    """Both heads in float32, the same three seeds: what the pages, the report and the slides say of FRN's distance."""
    folder, params = "metrics/frn_setting", load_params(path=ROOT / "params.yaml")
    settings, found = read(f"{folder}/settings.json"), read(f"{folder}/train.json")
    curves = pd.read_csv(ROOT / folder / "curves.csv")
    assert (settings["frn_learned_eps"], settings["head_lr"], settings["clip"]) == (1.0, 3e-4, None)
    assert curves["seed"].unique().tolist() == settings["seeds"] == params.seeds
    assert curves.groupby("seed")["val_accuracy"].max().mean() == pytest.approx(found["val_accuracy"])
    names = [f"test_accuracy_seed{seed}" for seed in settings["seeds"]]
    reference = {
        norm: np.mean([read(f"metrics/reference/train/{norm}-noclip.json")[name] for name in names])
        for norm in ("layernorm", "frn")
    }
    plain = pd.read_csv(ROOT / "plots/reference/curves/frn-noclip.csv")
    best = plain[plain["seed"].isin(settings["seeds"])].groupby("seed")["val_accuracy"].max().mean()
    sentence = frn.qualify_distance("vector")
    assert f"from {100 * best:.1f} to {100 * found['val_accuracy']:.1f}%" in sentence
    distances = [100 * (reference["layernorm"] - accuracy) for accuracy in (found["test_accuracy"], reference["frn"])]
    assert "FRN ended {:.1f} points below LayerNorm under the recipe, instead of {:.1f}".format(*distances) in sentence
    assert sentence in (ROOT / "README.md").read_text(encoding="utf-8")
