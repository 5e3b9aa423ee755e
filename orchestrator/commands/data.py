"""The verbs `data list` and `data prepare`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.progress import Progress

from orchestrator.catalogue import INSTALLED
from orchestrator.data.notes import print_notes
from orchestrator.data.prepare import list_data, prepare
from orchestrator.data.protocols import Source
from orchestrator.data.publish import put_data
from search_spaces.reading.assemble import source_of
from search_spaces.reading.errors import ABSENT, Place, SpecError
from search_spaces.reading.sections import Sections, apply_overrides
from search_spaces.reading.settings import Keys
from search_spaces.reading.yaml_source import plain
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


def prepare_set(
    name: str,
    path: str | None,
    image_size: int | None,
    overrides: Sequence[str] = (),
    *,
    to: str | None = None,
    as_json: bool,
) -> int:
    """Decodes a data set, or checks every byte of one that is decoded already.

    Args:
        to: a store that the data, labels too, is put into for other machines.
        overrides: `dataset.KEY=VALUE`, settings of its source.
    """
    source = _source(name, path, image_size, overrides)
    with Progress(
        console=Console(file=sys.stderr), transient=True, disable=not sys.stderr.isatty()
    ) as bar:
        task = bar.add_task(f"decoding {name}", total=None)
        data = prepare(
            source,
            verify=True,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    facts = asdict(data.facts) | {
        "images": str(data.images_dir),
        "fingerprint": data.fingerprint,
        "notes": data.notes,
    }
    print_notes(data)
    put = None if to is None else put_data(source, to).address
    facts |= {} if put is None else {"path": put}
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
        if put is not None:
            print(one_line(f"on other machines: --set dataset.path={put}"))
    return 0


def _source(
    name: str, path: str | None, image_size: int | None, overrides: Sequence[str]
) -> Source:
    """Returns the source that the words of the command describe.

    Raises:
        UserError: there is no such source, or it has no such setting, or needs another.
    """
    for text in overrides:
        if not text.startswith("dataset."):
            raise SpecError(
                "is no setting of a data set",
                place=Place(override=text),
                hint="write --set dataset.KEY=VALUE",
            )
    keys = Keys(INSTALLED)
    sections = Sections(source=Place(), keys=keys)
    apply_overrides(sections, overrides)
    places = {key: node.place for key, node in sections.trial.items()}
    values = {"dataset.name": name} | {key: plain(node) for key, node in sections.trial.items()}
    for key, given, flag in (
        ("dataset.path", path, "--path"),
        ("dataset.image_size", image_size, "--image-size"),
    ):
        if given is not None:
            values[key], places[key] = given, Place(file=f"{flag} {given}")
    try:
        for key, field in keys.section("dataset", values).items():
            if field.default is ABSENT and key not in values:
                flag = "--path PATH" if key == "dataset.path" else f"--set {key}=VALUE"
                raise DataError(f"{name}: {key} must be given. Add {flag}: {field.meaning}")
        made: Source = source_of(values, keys)
    except SpecError as error:
        raise error.located(places, values) from None
    return made
