"""Write every README.md from the README.md.j2 beside it and the result files: `python -m stages.tools.page`.

A template prints what `FACTS` gathers for its folder. One that stands in a folder unknown there, such as a new study's,
has what every template has: `params`, `read` (a JSON file of results), `minutes` (that a study took) and `table`.
"""

import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from stages.core.files import StageError, read_json, write_text
from stages.core.params import ParamsError, load_params
from stages.tools import main_facts, study_facts

NOTE = "<!-- `make page` writes this file from README.md.j2 and the results: change those. -->\n\n"
FACTS = {
    ".": main_facts.gather_front,
    "stages": main_facts.gather_main_study,
    "stages/variants": study_facts.gather_variants,
    "stages/cache_study": study_facts.gather_cache_study,
    "stages/unfreezing": study_facts.gather_unfreezing,
    "stages/baseline": study_facts.gather_baseline,
    "stages/small_cnn": study_facts.gather_small_cnn,
    "stages/small_cnn_sweep": study_facts.gather_small_cnn_sweep,
    "stages/mobilenetv2": study_facts.gather_mobilenetv2,
    "stages/neighbours": study_facts.gather_neighbours,
}


def find_templates(root: Path) -> list[Path]:
    return [*root.glob("README.md.j2"), *sorted(root.glob("stages/**/README.md.j2"))]


def tabulate_markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def render_page(template: Path, root: Path) -> str:
    """The text of the page that belongs beside a template; raises StageError if a result is missing."""
    folder, params = template.parent.relative_to(root).as_posix(), load_params(root / "params.yaml")
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.globals |= {
        "params": params,
        "read": lambda path: read_json(root / path),
        "minutes": partial(study_facts.count_minutes, root),
        "machines": read_json(root / "metrics/other_machines/about.json"),
        "table": tabulate_markdown,
    }
    try:
        facts = FACTS[folder](params, root) if folder in FACTS else {}
        return NOTE + environment.from_string(template.read_text(encoding="utf-8")).render(facts)
    except FileNotFoundError as error:
        raise StageError(f"{error.filename} does not exist: {folder}/README.md tells of results, so run them") from None


def main() -> None:
    try:
        pages = {template.with_suffix(""): render_page(template, Path()) for template in find_templates(Path())}
    except (StageError, ParamsError) as error:
        sys.exit(f"error: {error}")
    for path, text in pages.items():
        write_text(path, text)
        print(f"{path}: {len(text.encode()) / 1000:.1f} kB")


if __name__ == "__main__":
    main()
