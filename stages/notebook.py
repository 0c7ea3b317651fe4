"""Execute stages/analysis.py as a notebook: plots/documents/analysis.ipynb, and the same as HTML."""

from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from stages.core.files import write_text
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.models.configurations import list_keys, name_of

SOURCE = Path("stages/analysis.py")
TARGET = Path("plots/documents/analysis")
MARK = "# CONFIGURATIONS"


def make_section(key: str) -> str:
    """A heading, a sentence and a figure of one configuration, as cells of the script."""
    return "\n\n".join(
        [
            f"# %% [markdown]\n# ### {name_of(key)}",
            f'# %%\nMarkdown(describe_configuration("{key}"))',
            f'# %%\nshow(draw_configuration("{key}"))',
        ]
    )


def make_notebook(script: str, keys: list[str]) -> nbformat.NotebookNode:
    """The script as a notebook with a section for each configuration; cell ids count up, so that files compare."""
    sections = "\n\n".join(make_section(key) for key in keys)
    notebook = jupytext.reads(script.replace(MARK, sections), fmt="py:percent")
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{index}"
    return notebook


def main(params: Params) -> None:
    notebook = make_notebook(SOURCE.read_text(encoding="utf-8"), list_keys(params.norms))
    quiet = ["--log-level=ERROR"]  # no warning that a kernel of this machine talks to it unencrypted
    client = NotebookClient(notebook, timeout=600, record_timing=False, kernel_name="python3", extra_arguments=quiet)
    client.execute()
    html, _ = HTMLExporter().from_notebook_node(notebook)
    write_text(TARGET.with_suffix(".ipynb"), nbformat.writes(notebook) + "\n")
    write_text(TARGET.with_suffix(".html"), html)
    print(f"{TARGET}.ipynb: {len(notebook.cells)} cells")


if __name__ == "__main__":
    run_stage(main, timing="notebook")
