"""The notebook: what is stored in it is what it prints, and nothing of the machine that it ran on."""

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from printed import words

NOTEBOOK = Path(__file__).parents[2] / "examples" / "first_steps.ipynb"
STORED = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
CODE = [cell for cell in STORED["cells"] if cell["cell_type"] == "code"]
PATH = re.compile(r"(?<![\w.])(?:/|[A-Z]:\\)[\w.-]+[/\\]")


def printed(cells: list[Any]) -> list[str]:
    """Return the lines that cells have printed, without their numbers."""
    streams = [out["text"] for cell in cells for out in cell["outputs"] if out["output_type"] == "stream"]
    return words("".join(text if isinstance(text, str) else "".join(text) for text in streams))


@pytest.mark.parametrize("cell", CODE, ids=lambda cell: cell["id"])
def test_cells_compile_and_have_run_without_error(cell: Any) -> None:
    compile("".join(cell["source"]), cell["id"], "exec")
    assert {output["output_type"] for output in cell["outputs"]} <= {"stream", "display_data"}
    assert all(output.get("name") != "stderr" for output in cell["outputs"])


def test_all_cells_have_run_once_and_in_order() -> None:
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    assert len(printed(CODE)) > 20
    pictures = [output for cell in CODE for output in cell["outputs"] if "image/png" in output.get("data", {})]
    assert len(pictures) == 4


def test_is_small_and_names_no_place_on_a_machine() -> None:
    assert NOTEBOOK.stat().st_size < 300_000
    texts = [cell["source"] for cell in STORED["cells"]]
    for output in (output for cell in CODE for output in cell["outputs"]):
        texts += [
            output.get("text", []),
            *(data for kind, data in output.get("data", {}).items() if kind != "image/png"),
        ]
    texts += [json.dumps([STORED["metadata"], *(cell["metadata"] for cell in STORED["cells"])])]
    assert PATH.search("saved to /" + "home/somebody/x.npy")
    assert not PATH.search("\n".join("".join(text) for text in texts))


@pytest.mark.deep
def test_runs_and_prints_what_is_stored(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert printed(code) == printed(CODE)
    assert list(tmp_path.iterdir()) == []
