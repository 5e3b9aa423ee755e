"""A sweep in a notebook: a real kernel runs the cells, and shows a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from tests.helpers.sweeps import ONE_TRIAL_SPEC

CELLS = (
    "import sys\nimport orchestrator as oc\n"
    "heavy = sorted({'torch', 'ray', 'pandas', 'matplotlib'} & set(sys.modules))",
    "heavy",
    "sweep = oc.sweep('spec.yaml', out='out')",
    "sweep",
    "sweep.frame(by='case')[['case', 'n', 'test']]",
    "oc.load('out').frame().shape",
)


def test_a_notebook_sweeps_and_shows_its_table(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(ONE_TRIAL_SPEC)
    notebook: Any = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, CELLS)))
    client = NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    shown = [
        output.get("data", {})
        for cell in notebook.cells
        for output in cell.outputs
        if output.output_type == "execute_result"
    ]
    heavy, sweep, table, shape = shown
    assert heavy["text/plain"] == "[]", "importing the package stays light"
    assert "<table" in sweep["text/html"]
    assert "two stages, NLS" in table["text/html"]
    assert shape["text/plain"].startswith("(3, ")
    record = next((tmp_path / "out" / "trials").glob("*/stages/0002.json"))
    assert json.loads(record.read_text())["stage"] == 2
