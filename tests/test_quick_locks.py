import io
from collections import OrderedDict

import pytest
from dvc.utils.serialize import _yaml

from tests.conftest import ROOT
from tests.quick_locks import dump_plain

LOCKS = [ROOT / "dvc.lock", *sorted(ROOT.glob("stages/*/dvc.lock"))]


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_lock_file_is_written_as_dvc_writes_it(path):
    """Byte for byte: the tests' DVC differs in its speed alone. New stages come as ordered dicts."""
    plain, stages = io.StringIO(), _yaml.parse_yaml(path.read_text(), path)["stages"]
    dump_plain({"schema": "2.0", "stages": {name: OrderedDict(stage) for name, stage in stages.items()}}, plain)
    assert plain.getvalue() == path.read_text()
