"""Sweeps from Python.

    import orchestrator as oc

    sweep = oc.sweep("ablations.yaml", engine="inline")
    sweep.frame()             # one row a finished stage of a trial
    sweep.frame(by="case")    # one row a case: means over the seeds, differences to the baseline

A spec is a path, the name of a packaged file, or a dictionary with the keys of the file. Where YAML
takes the name of a plug-in, a dictionary may hold an object of its class: `{"base": {"query":
{"strategy": KCentre(limit=60)}}}`, in a case or in a `choice` of `vary` too. The sweep's folder
keeps the qualified name, version and settings of such a class, and a later process is given the
class again: `oc.resume("runs/x", plugins=[KCentre])`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.catalogue import INSTALLED, Catalogue, load_spec
from trainers.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator.driver import Ended
    from orchestrator.reporting.results import SweepResults
    from orchestrator.sweeps.stage_records import StageRecord
    from search_spaces.reading.config import Spec

SpecLike = str | Path | Mapping[str, Any]
EngineName = Literal["inline", "ray"]
OnStage = Callable[[str, "StageRecord"], None]


class Sweep:
    """A sweep as it is kept: what it has reached so far. Every call reads it anew."""

    def __init__(self, location: Path | str, plugins: Sequence[type[Any]] = ()) -> None:
        self.location = str(location)
        """Its folder, or the address of what else keeps it."""
        self._plugins = tuple(plugins)

    def __repr__(self) -> str:
        counts = ", ".join(f"{number} {state}" for state, number in self.counts().items() if number)
        return f"Sweep({self.location!r}: {counts or 'no trials'})"

    def _repr_html_(self) -> str:
        """Returns the table of cases, as a notebook shows it."""
        html: str = (
            self.frame(by="case").style.format(precision=1, na_rep="–").hide(axis="index").to_html()
        )
        return html

    def counts(self) -> dict[str, int]:
        """Returns how many trials are finished, failed, running (begun and neither) and pending."""
        states = [trial.state for trial in self._results().trials]
        return {
            state: states.count(state) for state in ("finished", "failed", "running", "pending")
        }

    def report(self) -> dict[str, Any]:
        """Returns everything that the report says, as `orchestrate report --json` prints it.

        Raises:
            ResultsDamaged: records of the sweep are not what was written.
        """
        from orchestrator.reporting import report

        return report.build(self._results().checked())

    def frame(self, by: Literal["stage", "case"] = "stage") -> pd.DataFrame:
        """Returns the results as a table; accuracies in percent, bits as charged to the budget.

        Args:
            by: `stage`: a row for each finished stage of each trial. `case`: a row for each case or
                candidate, means over its finished seeds, sample standard deviations, and paired
                differences to the baseline at equal bits.

        Raises:
            ResultsDamaged: records of the sweep are not what was written.
        """
        if by not in ("stage", "case"):
            raise UserError(f"by = {by!r:.100}: write 'stage' or 'case'")
        import pandas as pd

        return pd.DataFrame(self._stages() if by == "stage" else self._cases())

    def resume(
        self,
        *,
        engine: EngineName | None = None,
        progress: bool = True,
        on_stage: OnStage | None = None,
        insecure: bool = False,
    ) -> Sweep:
        """Goes on with the sweep; as `orchestrator.resume`."""
        return resume(
            self.location,
            plugins=self._plugins,
            engine=engine,
            progress=progress,
            on_stage=on_stage,
            insecure=insecure,
        )

    def _results(self) -> SweepResults:
        from orchestrator.reporting import results
        from orchestrator.sweeps import resolved
        from orchestrator.sweeps.layout import SweepLayout

        layout = SweepLayout.at(self.location)
        return results.load(
            layout, catalogue=resolved.catalogue_of(layout, resolved.read(layout), self._plugins)
        )

    def _stages(self) -> list[dict[str, Any]]:
        rows = []
        for candidate in self._results().checked().candidates:
            for result in candidate.trials:
                for record in result.records:
                    taken = {
                        item.name: getattr(record, item.name)
                        for item in fields(record)
                        if item.name not in _NOT_SHOWN
                    }
                    first = {
                        "case": " = ".join(candidate.cases),
                        "candidate": candidate.id,
                        "trial": result.trial.id,
                        "seed": result.trial.seed,
                    }
                    rows.append(
                        first
                        | dict(candidate.settings)
                        | {"stage": record.stage, "bits": record.bits}
                        | taken
                        | dict(record.named)
                    )
        return rows

    def _cases(self) -> list[dict[str, Any]]:
        rows = []
        for row in self.report()["rows"]:
            numbers: dict[str, Any] = {}
            for name in ("validation", "test"):
                numbers |= {name: row[name]["mean"], f"{name}_std": row[name]["std"]}
            gap = row["difference"]["test"] or {}
            ends = {"": "mean", "_low": "low", "_high": "high", "_told_apart": "told_apart"}
            numbers |= {f"test_vs_baseline{end}": gap.get(key) for end, key in ends.items()}
            plain = {
                name: row[name]
                for name in ("n", "bits", "annotation_hours", "questions", "yes", "no")
            }
            rows.append(
                {
                    "case": row["label"],
                    **row["settings"],
                    **plain,
                    **numbers,
                    "highest": row["is_leader"],
                    "baseline": row["is_baseline"],
                }
            )
        return rows


_NOT_SHOWN = (
    "stage",
    "trial",
    "seed",
    "parent",
    "data",
    "segments",
    "ledger_sha256",
    "test_correct_sha256",
    "val_correct",
    "versions",
    "key",
    "named",
)


def sweep(
    spec: SpecLike,
    *,
    out: Path | str | None = None,
    overrides: Sequence[str] = (),
    engine: EngineName = "inline",
    progress: bool = True,
    on_stage: OnStage | None = None,
    insecure: bool = False,
) -> Sweep:
    """Runs a sweep, or goes on with it if its folder holds this very sweep, and returns it when
    nothing is left to do.

    Args:
        spec: a path, the name of a packaged file, or a dictionary with the keys of a spec file,
            which may hold objects of plug-ins.
        out: the sweep's folder, or the address of a store of an installed package; None:
            runs/NAME.
        overrides: `key.path=value`, as after `--set`.
        engine: `inline`: in this process, one stage after the other. `ray`: on the cluster that
            `orchestrate` would find, or one of its own.
        progress: whether progress is shown on standard error.
        on_stage: called with the trial's label and its record whenever a stage has finished. An
            error that it raises is raised when the sweep has ended.
        insecure: also on a Ray that asks for no access token, where whoever reaches its ports can
            run programs.

    Raises:
        UserError: the spec is wrong, or the sweep cannot be run; the message says what to do.
    """
    from orchestrator import driver

    read = _read(spec, overrides)
    ended = driver.start(
        read,
        _engine(engine, insecure=insecure),
        out=out,
        listener=driver.Listener(show=progress, on_stage=on_stage),
    )
    return _ended(ended, [cls for _, cls in read.keys.catalogue.added.items()])


def resume(
    location: Path | str,
    *,
    plugins: Sequence[type[Any]] = (),
    engine: EngineName | None = None,
    progress: bool = True,
    on_stage: OnStage | None = None,
    insecure: bool = False,
) -> Sweep:
    """Goes on with a sweep and returns it when nothing is left to do.

    Args:
        location: its folder, or the address of what else keeps it.
        plugins: the classes whose objects the spec held when the sweep was begun.
        engine: as for `sweep`; None: what the sweep was begun on.
        insecure: as for `sweep`, and no sweep keeps it.

    Raises:
        UserError: as `sweep`, or a class that the sweep was begun with is not among `plugins`.
    """
    from orchestrator import driver

    listener = driver.Listener(show=progress, on_stage=on_stage)
    return _ended(
        driver.resume(
            location, _engine(engine, insecure=insecure), listener=listener, plugins=plugins
        ),
        plugins,
    )


def load(location: Path | str, *, plugins: Sequence[type[Any]] = ()) -> Sweep:
    """Returns a sweep that was begun, finished or still running. Runs nothing.

    Raises:
        UserError: there is no sweep, or a class that it was begun with is not among `plugins`.
    """
    loaded = Sweep(location, plugins)
    loaded.counts()
    return loaded


def plan(spec: SpecLike, *, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Returns what a sweep would do, as `orchestrate plan --json` prints it. Runs nothing.

    Raises:
        UserError: the spec is wrong.
    """
    from orchestrator.commands import plan as plans

    return plans.plan(_read(spec, overrides))


def _ended(ended: Ended, plugins: Sequence[type[Any]]) -> Sweep:
    from orchestrator.reporting import report, report_files, results

    known = ended.candidates
    report_files.write(
        ended.layout,
        report.build(results.load(ended.layout, known, _handed(plugins, ended)).checked()),
    )
    return Sweep(ended.layout.location, plugins)


def _handed(plugins: Sequence[type[Any]], ended: Ended) -> Catalogue:
    from orchestrator.sweeps import resolved

    return resolved.catalogue_of(ended.layout, resolved.read(ended.layout), plugins)


def _read(spec: SpecLike, overrides: Sequence[str]) -> Spec:
    if isinstance(spec, str | Path):
        return load_spec(str(spec), overrides)
    import yaml

    from search_spaces.reading.objects import without_objects
    from search_spaces.reading.spec import read_spec

    plain, classes = without_objects(spec, INSTALLED)
    catalogue = INSTALLED
    for (kind, _), cls in classes.items():
        catalogue = catalogue.adding(kind, cls)
    try:
        text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    except yaml.YAMLError as error:
        raise UserError(
            f"spec: holds {error.args[-1]!r:.200}, which no spec file could. Write text, numbers,"
            " flags, lists and dictionaries, or an object of a plug-in where YAML has its name"
        ) from None
    return read_spec(text, overrides, catalogue, path=Path("spec"), shown="spec")


def _engine(name: str | None, *, insecure: bool) -> Any:
    from orchestrator import driver

    if name not in ("inline", "ray", None):
        raise UserError(f"engine = {name!r:.100}: write 'inline' or 'ray'")
    return driver.Engine(name=name, insecure=insecure)
