"""DVC with libyaml for dvc.lock: it reads and writes the whole file after every stage, with ruamel.yaml in a second.

Importing this module is enough.
"""

import io
import re
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from dvc import dvcfile
from dvc.utils.serialize import _yaml
from dvc.utils.serialize._common import _modify_data
from ruamel.yaml import YAML
from ruamel.yaml.representer import SafeRepresenter

modify_with_comments = dvcfile.modify_yaml


class Plain(SafeRepresenter):
    """Of values without comments, in their order; what is null is left empty."""


Plain.add_representer(OrderedDict, lambda own, values: own.represent_dict(values))
Plain.add_representer(type(None), lambda own, _: own.represent_scalar("tag:yaml.org,2002:null", ""))


def dump_plain(data: dict, stream: io.TextIOBase) -> None:
    """The same bytes as DVC's own."""
    yaml = YAML(typ="safe")
    yaml.Representer = Plain
    yaml.default_flow_style, yaml.sort_base_mapping_type_on_output = False, False
    written = io.StringIO()
    yaml.dump(data, written)
    stream.write(re.sub("(?<=[:-]) $", "", written.getvalue(), flags=re.M))  # of what is null


@contextmanager
def modify_quickly(path: str, fs=None) -> Iterator[dict]:
    """What a person writes, dvc.yaml, keeps its comments and is left to DVC's own way."""
    is_lock = str(path).endswith(".lock")
    with _modify_data(path, _yaml.parse_yaml, dump_plain, fs=fs) if is_lock else modify_with_comments(path, fs) as data:
        yield data


dvcfile.modify_yaml = modify_quickly
