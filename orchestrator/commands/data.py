"""The verbs `data list` and `data prepare`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from rich.console import Console
from rich.progress import Progress

from orchestrator.data.find import OWN
from orchestrator.data.notes import print_notes
from orchestrator.data.prepare import list_data, prepare
from search_spaces.reading.config import DatasetConfig
from trainers.errors import DataError, one_line


def list_sets(*, as_json: bool) -> int:
    """Prints the data sets that a spec may name, and which are decoded here."""
    rows = [asdict(row) for row in list_data()]
    if as_json:
        json.dump(rows, sys.stdout, indent=1, default=str)
        sys.stdout.write("\n")
        return 0
    console = Console(soft_wrap=True, highlight=False)
    for row in rows:
        sizes = (
            f"{row['num_classes']} classes, {row['train_items']} training and {row['test_items']}"
            " test items"
            if row["num_classes"]
            else ""
        )
        console.print(f"{row['name']:14} {row['state']:13} {sizes}", markup=False)
        for line in (row["path"], row["note"]):
            if line:
                console.print(f"{'':14} {one_line(line)}", markup=False, style="dim")
    return 0


def prepare_set(name: str, path: str | None, image_size: int | None, *, as_json: bool) -> int:
    """Decodes a data set, or checks every byte of one that is decoded already."""
    if path and name == "digits":
        raise DataError(
            f"--path {path}: digits ships inside scikit-learn and has no place of its own; leave"
            " out --path, or name the set that lies there."
        )
    if not path and name in OWN:
        raise DataError(f"{name}: nothing says where the data is. Add --path.")
    with Progress(
        console=Console(file=sys.stderr), transient=True, disable=not sys.stderr.isatty()
    ) as bar:
        task = bar.add_task(f"decoding {name}", total=None)
        config = DatasetConfig(name=name, path=path, image_size=image_size)
        data = prepare(
            config,
            verify=True,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    facts = asdict(data.facts) | {
        "images": str(data.images_dir),
        "fingerprint": data.fingerprint,
        "notes": data.notes,
    }
    print_notes(data)
    if as_json:
        json.dump(facts, sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        print(
            one_line(
                f"{name}: {data.facts.train_items} training and {data.facts.test_items} test items"
                f" of {data.facts.num_classes} classes in {data.images_dir}"
            )
        )
    return 0
