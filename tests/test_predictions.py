import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from stages.core.files import StageError
from stages.training.predictions import Predictions, load_predictions


@pytest.fixture
def found(rng):
    labels = np.arange(200) % 10
    logits = rng.normal(size=(3, 200, 10)) + 2 * np.eye(10)[labels]
    return Predictions(np.array([0, 1, 2]), labels, F.softmax(torch.from_numpy(logits), 2).float().numpy())


def test_the_confusion_matrix_is_pandas(found):
    stacked = np.concatenate([found.labels] * 3)
    expected = pd.crosstab(stacked, found.predicted.ravel(), normalize="index")
    np.testing.assert_allclose(found.confusion(), expected.reindex(columns=range(10), fill_value=0))
    assert np.diag(found.confusion()).mean() == pytest.approx(found.correct.mean())  # classes are equally large


def test_files_come_back_and_a_missing_one_is_named(found, tmp_path):
    found.save(tmp_path / "frn-clip.npz")
    again = load_predictions(["frn-clip"], str(tmp_path))["frn-clip"]
    for name, value in vars(found).items():
        np.testing.assert_array_equal(getattr(again, name), value)
    with pytest.raises(StageError, match="frn-noclip.npz does not exist; run `dvc repro`"):
        load_predictions(["frn-noclip"], str(tmp_path))
