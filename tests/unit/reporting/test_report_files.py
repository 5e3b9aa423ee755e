"""The files of a report: drawn again where what they say, or they themselves, have changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.reporting import html, report_files
from orchestrator.reporting.report_files import ReportPaths
from tests.helpers.sweep_folder import ABLATIONS, records_of, trial_of, write_records, write_sweep


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one whenever a page is drawn."""
    pages: list[str] = []
    real = html.html

    def noted(found: object) -> str:
        pages.append("a page")
        return real(found)  # type: ignore[arg-type]

    monkeypatch.setattr(html, "html", noted)
    return pages


def test_what_says_the_same_is_not_drawn_again(tmp_path: Path, drawn: list[str]) -> None:
    layout = write_sweep(tmp_path, ABLATIONS[:3])
    first = report_files.write(layout)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "report").iterdir()}
    assert report_files.write(layout) == first
    assert len(drawn) == 1
    assert before == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "report").iterdir()}
    # One more accuracy, and every form says it.
    case = ABLATIONS[1]
    *rest, last = records_of(case, 0)
    write_records(layout, trial_of(case, 0), [*rest, last | {"val_top1": 12.0}])
    assert "12.0" in report_files.write(layout).json.read_text()
    assert len(drawn) == 2


def cut(paths: ReportPaths) -> None:
    paths.markdown.write_bytes(paths.markdown.read_bytes()[:100])


def lose_picture(paths: ReportPaths) -> None:
    assert paths.picture is not None
    paths.picture.unlink()


def lose_record(paths: ReportPaths) -> None:
    paths.json.with_name("report.sha256.json").unlink()


def spoil_record(paths: ReportPaths) -> None:
    paths.json.with_name("report.sha256.json").write_text('{"files": 3}')


@pytest.mark.parametrize("damage", [cut, lose_picture, lose_record, spoil_record])
def test_what_is_not_whole_is_drawn_again(
    tmp_path: Path, drawn: list[str], damage: Callable[[ReportPaths], None]
) -> None:
    layout = write_sweep(tmp_path, ABLATIONS[:3])
    paths = report_files.write(layout)
    whole = {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}
    damage(paths)
    report_files.write(layout)
    assert len(drawn) == 2
    assert whole == {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}


def test_other_code_draws_again(
    tmp_path: Path, drawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = write_sweep(tmp_path, ABLATIONS[:3])
    report_files.write(layout)
    monkeypatch.setattr(report_files, "code_hash", lambda: "another version")
    report_files.write(layout)
    assert len(drawn) == 2
