"""Sum up what half precision changes: shares of flipped predictions by configuration, and the largest of any model."""

from stages.core.files import read_json, write_json
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.models.configurations import list_keys


def main(params: Params) -> None:
    found = {key: read_json(f"metrics/cache_study/precision/{key}.json") for key in list_keys(params.norms)}
    flipped, differences = (
        {key: [own[f"{what}_seed{seed}"] for seed in params.seeds] for key, own in found.items()}
        for what in ("flipped", "accuracy_difference")
    )
    metrics = {
        "images": next(iter(found.values()))["images"],
        "flipped_max": max(map(max, flipped.values())),
        "accuracy_difference_max": max(map(max, differences.values())),
    }
    metrics |= {f"flipped_{key}": sum(shares) / len(shares) for key, shares in flipped.items()}
    write_json("metrics/cache_study/precision.json", metrics)
    print(f"at most {100 * metrics['flipped_max']:.2f}% of the predictions of a model differ")


if __name__ == "__main__":
    run_stage(main, timing="cache_study/precision_summary")
