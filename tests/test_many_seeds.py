"""Thirty seeds, from their results on: what is tested and written costs moments, as with three."""

import json
import shutil

import pandas as pd
import pypdf

from stages import document, statistics
from stages.core.params import load_params
from tests.conftest import STUDIED
from tests.synthetic import make_study


def test_thirty_seeds_are_tested_and_reported(committed, tmp_path, monkeypatch):
    """The report's other pictures are the committed ones, which take longer to draw than all else."""
    make_study(committed, tmp_path, seeds=30, norms=STUDIED)
    for name in ("plots/figures", "plots/curvature_figures", "plots/errors"):
        shutil.copytree(committed / name, tmp_path / name)
    for name in ("metrics/curvature.json", "metrics/errors.json"):
        shutil.copy(committed / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    params = load_params()
    statistics.main(params)
    document.main(params)
    metrics = json.loads((tmp_path / "metrics/statistics.json").read_text())
    assert metrics["smallest_p_possible"] == 2 / 2**30 and metrics["norms_tests_over_images"] == 180
    table = pd.read_csv(tmp_path / "plots/statistics/seeds.csv")
    assert table["p"].between(2 / 2**30, 1).all() and (table["smallest_effect"] > 0).all()
    pages = [page.extract_text() for page in pypdf.PdfReader(tmp_path / "plots/documents/report.pdf").pages]
    text = " ".join(" ".join(pages).split())
    assert "with 30 seeds each" in text and "With 30 paired seeds, differences of" in text


def test_the_made_up_study_has_the_seeds_asked_for(committed, tmp_path):
    make_study(committed, tmp_path, seeds=1, norms=["frn"])
    metrics = json.loads((tmp_path / "metrics/train/frn-clip.json").read_text())
    assert metrics["test_accuracy_std"] is None and metrics["test_accuracy"] == metrics["test_accuracy_seed0"]
    assert sorted(path.name for path in (tmp_path / "plots/curves").iterdir()) == ["frn-clip.csv", "frn-noclip.csv"]
