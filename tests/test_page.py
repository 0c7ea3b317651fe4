"""The plots page: what its charts draw, compared with the files that they are made of, and how it is put together."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import vl_convert
from dvc.cli import main as dvc
from dvc.render.match import match_defs_renderers
from dvc.repo import Repo
from ruamel.yaml import YAML

from stages.core.files import read_json, write_json
from stages.core.params import load_params
from stages.models.configurations import color_of, list_keys, name_of
from stages.reporting.headlines import combine_curves, headline_metrics, shade_of
from tests.charts import Chart, read_chart
from tests.conftest import ROOT, STUDIED, Checkout

OVERLAYS = {
    "plots/curves.csv": "val_accuracy",
    "Validation loss": "val_loss",
    "Training loss": "train_loss",
    "Gradient norm": "grad_norm",
}
SINGLE = "curves gradients gradient_statistics curvature curvature_details".split()
IMAGES = "data figures errors statistics curvature_figures".split()
MODES = ("no clipping", "clipped")
Tables = dict[str, Path]  # revision -> the folder that holds its files


def read_tables(tables: Tables, name: str) -> pd.DataFrame:
    return pd.concat([pd.read_csv(folder / name).assign(rev=rev) for rev, folder in tables.items()], ignore_index=True)


def assert_lines(chart: Chart, expected: dict[tuple, pd.Series]) -> None:
    """Each line runs through the expected values, by rising x."""
    assert set(chart.lines) == set(expected)
    for group, values in expected.items():
        values = values.sort_index()
        assert [x for x, _ in chart.lines[group]] == pytest.approx(values.index.tolist(), abs=1e-9)
        assert [y for _, y in chart.lines[group]] == pytest.approx(values.tolist(), rel=1e-6)


def assert_epochs(chart: Chart, expected: dict[tuple, pd.Series]) -> None:
    """Lines, and a point at each epoch, so that a single epoch shows too."""
    assert_lines(chart, expected)
    assert len(chart.points) == sum(map(len, expected.values()))


def assert_marks(found: list[tuple], expected: list[tuple]) -> None:
    """The same marks, in any order: (group, *values, name)."""
    found, expected = (sorted(marks, key=lambda mark: (mark[0], mark[-1], mark[1])) for marks in (found, expected))
    assert [(mark[0], mark[-1]) for mark in found] == [(mark[0], mark[-1]) for mark in expected]
    for drawn, mark in zip(found, expected, strict=True):
        assert drawn[1:-1] == pytest.approx(mark[1:-1], abs=1e-6)


def means(table: pd.DataFrame, series: str, x: str, y: str) -> dict[tuple, pd.Series]:
    """Means over seeds: (series, revision) -> y by x."""
    mean = table.groupby([series, "rev", x])[y].mean()
    return {group: mean[group] for group in mean.index.droplevel(x).unique()}


def check_overlay(spec: dict, tables: Tables, column: str) -> None:
    parts = []
    for rev, folder in tables.items():
        for key in list_keys(load_params(path=folder / "params.yaml").norms):
            table = pd.read_csv(folder / f"plots/curves/{key}.csv")
            parts.append(table.assign(rev=rev, configuration=name_of(key)))
    chart = read_chart(spec)
    assert_epochs(chart, means(pd.concat(parts), "configuration", "epoch", column))
    assert set(chart.legends["mean over seeds"]) == {name for part in parts for name in part["configuration"]}


def check_losses(spec: dict, tables: Tables, name: str) -> None:
    table = read_tables(tables, name).melt(["rev", "epoch"], ["train_loss", "val_loss"], "part", "loss")
    table["part"] = table["part"].map({"train_loss": "training", "val_loss": "validation"})
    assert_epochs(read_chart(spec), means(table, "part", "epoch", "loss"))


def check_layers(spec: dict, tables: Tables, name: str) -> None:
    expected = means(read_tables(tables, name), "layer", "epoch", "norm_mean")
    shown = {group: values[values > 1e-6] for group, values in expected.items()}
    assert_epochs(read_chart(spec, log=True), {group: values for group, values in shown.items() if len(values)})


def check_slices(spec: dict, tables: Tables, name: str) -> None:
    table = read_tables(tables, name)
    table = table[table["measure"].str.match("eigenvector|path")]
    groups = {group: part.set_index("x")["value"] for group, part in table.groupby(["measure", "rev"])}
    assert_lines(read_chart(spec, log=True), groups)


def rows_of(table: pd.DataFrame, name: str, *columns: str) -> list[tuple]:
    table = table.dropna(subset=list(columns))
    columns_of = (table["rev"], *map(table.get, columns), table[name].astype(str))
    return [((rev,), *values, label) for rev, *values, label in zip(*columns_of, strict=True)]


def check_rows(spec: dict, tables: Tables, file: str, name: str, x: str, spans: bool = False, mean: bool = False):
    """One point a row; with `spans` a line from low to high, with `mean` a bar at the mean of the rows of one name."""
    table = read_tables(tables, file)
    chart = read_chart(spec, named=True)
    assert_marks(chart.points, rows_of(table, name, x))
    assert_marks(chart.spans, rows_of(table, name, "low", "high") if spans else [])
    averages = table.groupby(["rev", name], as_index=False)[x].mean()
    assert_marks(chart.bars, rows_of(averages, name, x) if mean else [])


TABLES = {
    "plots/statistics/seeds.csv": ("contrast", "mean", True),
    "plots/statistics/images.csv": ("contrast", "p_adjusted"),
    "plots/curvature_correlations.csv": ("title", "rho", True),
}


def find_check(name: str) -> Callable[[dict, Tables], None]:
    if name in OVERLAYS:
        return lambda spec, tables: check_overlay(spec, tables, OVERLAYS[name])
    folder = name.split("/")[1]
    by_folder = {"gradient_statistics": ("layer", "grad_to_weight", False, True), "curvature": ("seed", "lambda_max")}
    arguments = TABLES.get(name) or by_folder.get(folder)
    if arguments:
        return lambda spec, tables: check_rows(spec, tables, name, *arguments)
    check = {"curves": check_losses, "gradients": check_layers, "curvature_details": check_slices}[folder]
    return lambda spec, tables: check(spec, tables, name)


def load_charts(folder: Path, revisions: list[str] | None = None) -> dict[str, dict]:
    """Specifications of all charts, as `dvc plots show` or, with revisions, `dvc plots diff` fills them."""
    with Repo(folder) as repo:
        data = repo.plots.diff(revs=revisions) if revisions else repo.plots.show()
        renderers = [match.renderer for match in match_defs_renderers(data, templates_dir=repo.plots.templates_dir)]
    found = {renderer.name: renderer.get_filled_template() for renderer in renderers if renderer.TYPE == "vega"}
    return {name: spec for name, spec in found.items() if spec}


def charts_expected(folder: Path) -> set[str]:
    single = {
        f"plots/{part}/{key}.csv"
        for part in SINGLE
        for key in list_keys(load_params(path=folder / "params.yaml").norms)
    }
    return single | {*OVERLAYS, *TABLES}


def commit(folder: Path) -> None:
    checkout = Checkout(folder)
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "results"]):
        checkout.run("git", *command)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """The committed study's tables in a repository of their own, where a test may change them."""
    folder = tmp_path_factory.mktemp("page") / "study"
    of_this_machine = shutil.ignore_patterns("tmp", "cache", "config.local", "offline.html")
    shutil.copytree(ROOT / ".dvc", folder / ".dvc", ignore=of_this_machine)
    skip = shutil.ignore_patterns("reference", "other_machines", "*.npz", "documents")
    for name in ("metrics", "plots"):
        shutil.copytree(ROOT / name, folder / name, ignore=skip)
    for name in ("dvc.yaml", "params.yaml", "stages/cache_study/dvc.yaml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    commit(folder)
    return folder


@pytest.fixture(scope="module")
def committed(study) -> dict[str, dict]:
    return load_charts(study)


def test_every_chart_of_the_committed_study_draws_its_file(committed):
    """Fifteen epochs in their order, means over seeds where the chart says so, else one mark per row."""
    assert set(committed) == charts_expected(ROOT) and len(committed) == 4 + 3 + 5 * 6
    for name, spec in committed.items():
        find_check(name)(spec, {"workspace": ROOT})
    lines = read_chart(committed["Validation loss"]).lines.values()
    assert all([round(x) for x, _ in line] == list(range(1, 16)) for line in lines)


def set_norms(folder: Path, norms: list[str]) -> list[str]:
    """Write `norms` to params.yaml; returns the configurations' keys."""
    yaml = YAML()
    values = yaml.load(folder / "params.yaml")
    values["norms"] = norms
    yaml.dump(values, folder / "params.yaml")
    return [f"{norm}-{mode}" for norm in norms for mode in ("noclip", "clip")]


def change_results(folder: Path) -> None:
    """Two norms, one seed, twelve epochs and other values; the files of the third norm stay behind."""
    for path in [*(folder / "plots").glob("*/*.csv"), folder / "plots/curvature_correlations.csv"]:
        table = pd.read_csv(path)
        if "seed" in table:
            table = table[table["seed"] == 0]
        if "epoch" in table:
            table = table[table["epoch"] <= 12]
        if "contrast" in table:
            table = table[~table["contrast"].str.contains("LayerNorm")]
        values = [name for name in table.select_dtypes("number") if name not in ("seed", "epoch", "x", "y")]
        table = table.astype(dict.fromkeys(values, float))
        table[values] *= 0.9
        if "low" in table:
            table.loc[table.index[0], ["low", "high"]] = float("nan")
        table.to_csv(path, index=False)


def test_two_revisions_with_one_seed_fewer_epochs_and_fewer_norms(study, tmp_path, monkeypatch):
    """`dvc plots diff`: both revisions are drawn, are told apart, and show no norm that params.yaml has not."""
    folder = tmp_path / "study"
    shutil.copytree(study, folder)
    keys = set_norms(folder, ["batchnorm", "frn"])
    change_results(folder)
    monkeypatch.chdir(folder)
    combine_curves(keys).to_csv("plots/curves.csv", index=False)
    charts = load_charts(folder, ["HEAD"])
    assert set(charts) == charts_expected(study)
    layernorm = {name for name in charts if "layernorm" in name}
    for name in {*OVERLAYS, *TABLES} | {
        f"plots/{part}/{norm}-clip.csv" for part in SINGLE for norm in ("layernorm", "frn")
    }:
        tables = {"HEAD": study} if name in layernorm else {"workspace": folder, "HEAD": study}
        find_check(name)(charts[name], tables)
    assert set(load_charts(folder)) == charts_expected(folder) == set(charts) - layernorm


def test_a_configuration_has_its_own_name_and_colour_and_old_revisions_have_one(committed):
    """As the table says; and grey and its name in files where a table was written before it said so."""
    spec = json.loads(json.dumps(committed["plots/curves.csv"]))
    colours = read_chart(spec).legends["mean over seeds"]
    keys = list_keys(STUDIED)
    assert colours == {name_of(key): shade_of(key) for key in keys} and len(set(colours.values())) == len(keys)
    assert colours["FRN, no clipping"] == color_of("frn").lower()
    for row in spec["data"]["values"]:
        if row["configuration"] == "frn-clip":
            del row["label"], row["color"]
    assert read_chart(spec).legends["mean over seeds"]["frn-clip"] == "#777777"


def test_a_single_epoch_is_drawn(committed):
    for name, points in {
        "Training loss": 6,
        "plots/curves/frn-clip.csv": 2,
        "plots/gradients/frn-clip.csv": 10,
    }.items():
        spec = json.loads(json.dumps(committed[name]))
        spec["data"]["values"] = [row for row in spec["data"]["values"] if row["epoch"] == "1"]
        assert len(read_chart(spec, log="gradients" in name).points) == points


def test_the_combined_files_are_those_of_the_configurations(monkeypatch):
    monkeypatch.chdir(ROOT)
    keys = list_keys(load_params().norms)
    lines = (ROOT / "plots/curves.csv").read_text().splitlines()
    rows = []
    for key in keys:
        header, *own = (ROOT / f"plots/curves/{key}.csv").read_text().splitlines()
        rows += [f'{key},"{name_of(key)}",{shade_of(key)},{row}' for row in own]
    assert lines == [f"configuration,label,color,{header}", *rows]
    metrics = {key: read_json(f"metrics/train/{key}.json") for key in keys}
    assert read_json("metrics/test_accuracy.json") == {key: metrics[key]["test_accuracy"] for key in keys}
    assert headline_metrics(metrics) == read_json("metrics/test_accuracy.json")
    reference = {key: read_json(f"metrics/reference/train/{key}.json") for key in keys}
    assert headline_metrics(reference) == read_json("metrics/reference/test_accuracy.json")


def words_script() -> str:
    return re.search(r'<script id="words">(.*?)</script>', (ROOT / ".dvc/plots/page.html").read_text(), re.S)[1]


def place_on_page(plots: list[tuple[str, str]]) -> list[dict]:
    """What the page's script makes of (id of the element, its own title)."""
    labels = {key: name_of(key) for key in list_keys(STUDIED)}
    call = f"{json.dumps(plots)}.map((plot) => place(...plot, {json.dumps(labels)}))"
    script = f"{words_script()}\nconsole.log(JSON.stringify({call}));"
    return json.loads(subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not shutil.which("node"), reason="needs Node.js to run the page's script")
def test_the_page_is_ordered_for_a_reader(committed):
    """Curves, contrasts, figures, and at the end the charts of single configurations; titles are words."""
    images = sorted(str(path.relative_to(ROOT)) for name in IMAGES for path in (ROOT / "plots" / name).glob("*.png"))
    names = {name: spec["title"]["text"] for name, spec in committed.items()} | {image: image for image in images}
    ids = [re.sub(r"[^\w-]", "_", name) for name in names]
    places = dict(zip(names, place_on_page(list(zip(ids, names.values(), strict=True))), strict=True))
    assert [
        place["title"] for place in places.values() if re.search(r"\w/\w|_|\.png|[a-z]norm|clip\b", place["title"])
    ] == []
    assert all(re.match("[A-Z]", place["title"]) for place in places.values())

    titles = [(place["section"], place["title"]) for place in places.values()]
    assert len(set(titles)) == len(titles), "two plots look the same to a reader"
    assert {name for name, place in places.items() if place["single"]} == {
        n for n in committed if n.count("/") == 2
    } - {
        "plots/statistics/seeds.csv",
        "plots/statistics/images.csv",
    }
    assert {place["section"] for place in places.values() if place["single"]} == set(
        map(name_of, list_keys(load_params().norms))
    )

    sections = re.findall(r'^      "(.+)": /', words_script(), re.M)
    order = [name for section in sections for name in names if places[name]["section"] == section]
    first = [place["title"] for name, place in places.items() if place["section"] == sections[0]]
    assert set(order[:4]) == set(OVERLAYS) and sorted(first) == sorted([*list(OVERLAYS)[1:], "Validation accuracy"])
    assert places["plots/curves.csv"]["rank"] < min(places[name]["rank"] for name in list(OVERLAYS)[1:])
    assert order[4].startswith("plots/statistics") and "Further plots" not in {p["section"] for p in places.values()}
    assert place_on_page([["plots_new_figure_png", "plots/new/a_figure.png"]])[0]["title"] == "A figure"


def test_make_setup_writes_a_page_that_needs_no_network_wherever_it_lies(study, tmp_path, monkeypatch):
    """The rule of the Makefile, with packages installed already; .dvc/config.local then names the page."""
    folder = tmp_path / "study"
    shutil.copytree(study, folder)
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    (folder / ".venv/share").mkdir(parents=True)
    (folder / ".venv/share/vega.js").write_text(bundle + "\n")
    for name in ("Makefile", "requirements.lock"):
        shutil.copy(ROOT / name, folder / name)
    checkout = Checkout(folder)
    checkout.run("make", "setup", "--assume-old=.venv/share/vega.js")
    assert checkout.run("git", "status", "--porcelain", ".dvc") == ""
    monkeypatch.chdir(folder)
    assert dvc(["plots", "show", "--out", "../elsewhere", "plots/curves.csv"]) == 0
    page = (tmp_path / "elsewhere/index.html").read_text()
    assert bundle in page and page.count("vegaEmbed('#") == 1
    rest = page.replace(bundle, "")
    assert re.findall(r'(?:src|href)="([^"]*)"', rest) == ["https://cdn.jsdelivr.net/npm/${name}"]
    assert page.index(bundle) < page.index("if (!window.vegaEmbed) {"), "the network is asked where Vega is not there"


def test_without_make_setup_the_page_takes_vega_from_its_network(study):
    with Repo(study) as repo:
        template = Path(repo.dvc_dir) / repo.config["plots"]["html_template"]
    assert template.name == "page.html" and "https://cdn.jsdelivr.net/npm/" in template.read_text()


def test_dvc_prints_the_headline_alone_and_fits_160_columns(study, tmp_path, monkeypatch, capsys):
    """Timings and details are no metrics; an experiment of another threshold changes every one of the six figures."""
    folder = tmp_path / "study"
    shutil.copytree(study, folder)
    accuracies = read_json(folder / "metrics/test_accuracy.json")
    write_json(folder / "metrics/test_accuracy.json", {key: value - 0.0123 for key, value in accuracies.items()})
    params = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(params.replace("clip: 1.0 ", "clip: 0.25 "))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "160")
    tables = []
    for command in (["metrics", "show"], ["metrics", "diff"], ["exp", "show", "--only-changed", "--no-pager"]):
        assert dvc(command) == 0
        tables.append(table := capsys.readouterr().out)
        assert all(key in table for key in accuracies) and max(map(len, table.splitlines())) <= 160, table
        assert "seconds" not in table and "\N{HORIZONTAL ELLIPSIS}" not in table
    assert len(tables[1].splitlines()) == 1 + len(accuracies)
    with Repo(folder) as repo:
        assert [str(out) for out in repo.index.metrics] == ["metrics/test_accuracy.json"]
        stages = [stage for stage in repo.index.stages if not stage.always_changed]
        others = [out for stage in stages for out in stage.outs if str(out).endswith(".json") and not out.use_cache]
        assert others and all(out.is_plot or out.is_metric for out in others), "a plain out loses the run-cache"
