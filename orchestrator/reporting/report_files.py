"""The files that a report is read from: HTML, Markdown, CSV, JSON and a picture."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from orchestrator.reporting import results
from orchestrator.reporting.report import build
from orchestrator.storage.folder import FolderStore
from orchestrator.storage.store import Unreadable, check_name
from orchestrator.sweeps.folder import code_hash
from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.records import encode_object, parse_object

_PICTURE: Final = "report.svg"
_DRAWN: Final = "report.sha256.json"
"""What the forms were made of, and their checksums."""


@dataclass(frozen=True, slots=True)
class ReportPaths:
    """Where the forms of a report were written."""

    html: Path
    markdown: Path
    csv: Path
    """A line per row and seed."""
    csv_rows: Path
    """A line per row."""
    json: Path
    picture: Path | None
    """The main comparison as an SVG file; None if no rows are compared."""


def write(layout: SweepLayout, built: Mapping[str, Any] | None = None) -> ReportPaths:
    """Writes the report in every form; each file is replaced as a whole. Where the sweep is kept in
    no folder, they are written to `runs/NAME/report` too, NAME being the last part of its address:
    two sweeps of one spec do not replace each other's.

    Args:
        built: what `build` made of the sweep, if it has been; None: of what is on disk now.

    Raises:
        SweepError: no sweep is there.
        CorrectnessError: a file that says which test images were right is damaged.
        StorageError: the folder cannot be written.
    """
    from orchestrator.reporting.csv import json_text

    report = build(results.load(layout)) if built is None else built
    said = json_text(report)
    # Pictures take most of the time: what says the same, by the same code, is not drawn again.
    of = hashlib.sha256(f"{code_hash()}\n{said}".encode()).hexdigest()
    texts = _drawn_before(layout, of)
    if texts is None:
        texts = _texts(report, said)
        layout.store.remove(f"{layout.report}/{_DRAWN}")
        if _PICTURE not in texts:
            layout.store.remove(f"{layout.report}/{_PICTURE}")
        for name, text in texts.items():
            layout.store.put(f"{layout.report}/{name}", text.encode(), replace=True)
        layout.store.put(f"{layout.report}/{_DRAWN}", _record(of, texts), replace=True)
    shown = layout.store.as_folder(layout.report)
    if shown is None:
        own = layout.location.rstrip("/").rpartition("/")[2]
        shown = _copied(texts, f"runs/{_folder_name(own)}/report")
    return ReportPaths(
        html=shown / "report.html",
        markdown=shown / "report.md",
        csv=shown / "report.csv",
        csv_rows=shown / "report-rows.csv",
        json=shown / "report.json",
        picture=shown / _PICTURE if _PICTURE in texts else None,
    )


def _texts(report: Mapping[str, Any], said: str) -> dict[str, str]:
    """Returns the forms of a report by their file names.

    Args:
        said: the JSON form.
    """
    from orchestrator.reporting.csv import csv_by_row, csv_by_seed
    from orchestrator.reporting.html import html, picture
    from orchestrator.reporting.markdown import markdown

    svg = picture(report)
    return {
        "report.html": html(report),
        "report.md": markdown(report),
        "report.csv": csv_by_seed(report),
        "report-rows.csv": csv_by_row(report),
        "report.json": said,
    } | ({} if svg is None else {_PICTURE: svg})


def _record(of: str, texts: Mapping[str, str]) -> bytes:
    sums = {name: hashlib.sha256(texts[name].encode()).hexdigest() for name in sorted(texts)}
    return encode_object({"of": of, "files": sums})


def _drawn_before(layout: SweepLayout, of: str) -> dict[str, str] | None:
    """Returns the forms that are there, if they are whole and were made of just this."""
    try:
        held = layout.store.get(f"{layout.report}/{_DRAWN}")
        names = parse_object(held)["files"]
        texts = {
            name: layout.store.get(f"{layout.report}/{name}").decode() for name in sorted(names)
        }
    except (FileNotFoundError, Unreadable, ValueError, KeyError, TypeError):
        return None
    return texts if held == _record(of, texts) else None


def _copied(texts: Mapping[str, str], folder: str) -> Path:
    """Writes the forms of a report into a folder, for people to open, and returns it."""
    copies = FolderStore(folder)
    if _PICTURE not in texts:
        copies.remove(_PICTURE)
    for name, text in texts.items():
        copies.put(name, text.encode(), replace=True)
    return Path(folder)


def _folder_name(name: str) -> str:
    """Returns a sweep's name, which may come from a file, where it can be that of a folder."""
    try:
        return check_name(name.replace("/", "-"))
    except ValueError:
        return "sweep"
