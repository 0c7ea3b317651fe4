"""How a stage starts and fails: checked parameters in, one clear message out."""

import sys
from collections.abc import Callable

from stages.lib.files import StageError
from stages.lib.params import Params, ParamsError, load_params


def run_stage(main: Callable[..., None], *argument_names: str) -> None:
    """Call `main(params, *arguments)` with the command line's arguments; exit with a message instead of a traceback."""
    if len(sys.argv) - 1 != len(argument_names):
        sys.exit(f"usage: python -m {main.__globals__['__spec__'].name} {' '.join(argument_names)}".rstrip())
    try:
        params: Params = load_params()
        main(params, *sys.argv[1:])
    except (StageError, ParamsError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; run the command again to go on")
