"""Record what decides results beside parameters, files and code: torch, the device, the precision really used.

DVC cannot see these, so this stage always runs. The others depend on what it writes: they run again where that changed.
It comes before them, and so it is here that the files of norms are checked.
"""

from pathlib import Path

from stages.core.device import ENVIRONMENT, choose_device, describe_device, find_environment
from stages.core.files import file_sha256, write_json
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.reporting.norm_check import check_norm


def main(params: Params) -> None:
    for norm in params.norms:
        check_norm(norm)
    device, weights = choose_device(params.device), Path(params.backbone.weights)
    found = find_environment(params, device)
    own = file_sha256(weights) if weights.is_file() else None  # the content of a user's own file
    write_json(ENVIRONMENT, found | {"weights_sha256": own})
    precision = ", ".join(f"{section} {found['precision'][section]}" for section in ("features", "train"))
    print(f"torch {found['torch']} computes on {device.type} ({describe_device(device)}); precision: {precision}")


if __name__ == "__main__":
    run_stage(main, timing=None)
