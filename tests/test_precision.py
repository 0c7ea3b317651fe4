"""What half precision changes, for the configurations that params.yaml lists, whichever they are."""

import json

import pytest

from stages.cache_study.precision_summary import main
from stages.core.params import load_params
from tests.conftest import ALWAYS, ROOT
from tests.test_pipeline import stages_run

PIPELINE = "stages/cache_study/dvc.yaml"


def test_the_summary_has_means_by_configuration_and_the_largest_of_any_model(tmp_path, monkeypatch):
    params = load_params(ROOT / "params.yaml")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metrics/cache_study/precision").mkdir(parents=True)
    for k, key in enumerate(f"{norm}-{mode}" for norm in params.norms for mode in ("noclip", "clip")):
        own = {"images": 100}
        for seed in params.seeds:
            own |= {f"flipped_seed{seed}": 0.01 * k + 0.001 * seed, f"accuracy_difference_seed{seed}": 0.02 / (k + 1)}
        (tmp_path / f"metrics/cache_study/precision/{key}.json").write_text(json.dumps(own))
    main(params)
    found = json.loads((tmp_path / "metrics/cache_study/precision.json").read_text())
    count, middle = 2 * len(params.norms), sum(params.seeds) / len(params.seeds)
    assert len(found) == 3 + count and found["images"] == 100
    assert found["flipped_max"] == pytest.approx(0.01 * (count - 1) + 0.001 * max(params.seeds))
    assert found["accuracy_difference_max"] == 0.02
    assert found[f"flipped_{params.norms[0]}-clip"] == pytest.approx(0.01 + 0.001 * middle)


def test_a_study_of_one_norm_compares_its_two_configurations(scratch_copy):
    scratch_copy.set_params("norms=[layernorm]")
    output = scratch_copy.run_preloaded("dvc", "repro", f"{PIPELINE}:precision_summary")
    keys = ["layernorm-noclip", "layernorm-clip"]
    own = ["plain", "precision_summary", *(f"precision@{key}" for key in keys)]
    assert stages_run(output) == {f"{PIPELINE}:{name}" for name in own} | ALWAYS
    summary = scratch_copy.read_json("metrics/cache_study/precision.json")
    assert {name for name in summary if name.startswith("flipped_")} == {"flipped_max", *(f"flipped_{k}" for k in keys)}
    for key in keys:
        found = scratch_copy.read_json(f"metrics/cache_study/precision/{key}.json")
        shares = [found["flipped_seed0"], found["flipped_seed1"]]
        assert summary[f"flipped_{key}"] == sum(shares) / 2 <= summary["flipped_max"] <= 0.2
        assert 40 * sum(shares) == pytest.approx(round(40 * sum(shares))) and found["images"] == 40
