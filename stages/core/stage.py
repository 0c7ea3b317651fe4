"""How a stage starts and fails: checked parameters in, one clear message out."""

import sys
import time
from collections.abc import Callable

from stages.core.files import StageError, write_json
from stages.core.params import ParamsError, load_params


def run_stage(main: Callable[..., dict | None], *argument_names: str, timing: str | None) -> None:
    """Call `main(params, *arguments)` with the command line's arguments; exit with a message instead of a traceback.

    The seconds it took, and what further wall-clock figures `main` returns, go to `metrics/timing/<timing>.json`, where
    `{}` in `timing` stands for an argument; None leaves no such file.
    """
    module = main.__globals__["__spec__"].name
    if len(sys.argv) - 1 != len(argument_names):
        sys.exit(f"usage: python -m {module} {' '.join(argument_names)}".rstrip())
    try:
        started = time.perf_counter()
        params = load_params(task=[*module.split("."), *sys.argv[1:]])
        figures = main(params, *sys.argv[1:]) or {}
        seconds = {"seconds": time.perf_counter() - started}
        if timing:
            write_json(f"metrics/timing/{timing.format(*sys.argv[1:])}.json", seconds | figures)
    except (StageError, ParamsError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; run the command again to go on")
