import pytest

from stages.core.tables import look_up


def test_an_entry_is_found_and_an_unknown_name_refused_with_those_there_are():
    assert look_up({"one": 1, "two": 2}, "number", "two") == 2
    with pytest.raises(ValueError, match="number is 'three'; it must be one of one, two"):
        look_up({"one": 1, "two": 2}, "number", "three")
