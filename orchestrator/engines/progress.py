"""What a sweep shows while it runs: one writer to standard error, live on a terminal, a line per
event otherwise.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.reporting.results import printable
from orchestrator.reporting.status import duration
from orchestrator.reporting.words import number
from orchestrator.sweeps.stage_records import TOP1, StageRecord

OnStage = Callable[[str, StageRecord], None]
"""Called with the trial's label and the record of a stage that it has finished."""


_PACE: Final = 5
"""Stages from which on they have a pace: several at once finish together, and say nothing."""


_SHORTEST: Final = 12
"""Characters of a name that stay on the narrowest terminal."""


class Progress:
    """Shows stages as they start and finish. Safe to call from any thread; shows validation
    accuracy only.

    A stage that several trials share is counted once, by the key in its record.
    """

    def __init__(
        self,
        total_stages: int | None,
        console: Console | None = None,
        *,
        done: Collection[str] = (),
        names: Callable[[str], str] = str,
        workers: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_stage: OnStage | None = None,
    ) -> None:
        """total_stages: distinct stage trainings, None where a search does not know yet. done: keys
        of those that earlier runs left finished. names: what people call a trial, by what the
        processes that train do. workers: stages that can train at once, as far as is known.
        """
        self._workers = workers
        self._name = names
        self._console = console or Console(file=sys.stderr)
        self._total = total_stages
        self._clock = clock
        self._on_stage = on_stage
        self.callback_error: Exception | None = None
        """The first error that `on_stage` raised: no trial fails for it."""
        self._began = clock()
        self._lock = threading.RLock()
        self._seen = set(done)
        self._first: float | None = None
        """When the first stage of this run had finished."""
        self._paced = 0
        """Stages that have finished since."""
        self._training = 0.0
        """Seconds of training in this run."""
        self._trained = 0
        self._shared = 0
        self._failed = 0
        self._running: dict[tuple[str, int], tuple[int, int] | None] = {}
        self._recent: deque[tuple[str, str, str]] = deque(maxlen=4)
        self._live = (
            Live(
                get_renderable=self.renderable,
                console=self._console,
                refresh_per_second=4,
                transient=True,
            )
            if self._console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        self._began = self._clock()
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        with self._lock:
            took = duration(self._clock() - self._began)
            failed = (
                f", {self._failed} {'trial' if self._failed == 1 else 'trials'} failed"
                if self._failed
                else ""
            )
            self._print(
                Text(
                    f"{self._trained} {'stage' if self._trained == 1 else 'stages'} trained,"
                    f" {self._shared} shared{failed} in {took}"
                )
            )

    def stop(self) -> None:
        """Restores the terminal; lines can still be printed."""
        if self._live is not None:
            self._live.stop()

    def set_total(self, total_stages: int | None) -> None:
        """Sets the number of stages, which grows as a search draws candidates."""
        with self._lock:
            self._total = total_stages

    def stage_started(self, trial_label: str, stage: int) -> None:
        with self._lock:
            self._running[self._name(trial_label), stage] = None

    def epoch(self, trial_label: str, stage: int, epoch: int, epochs: int) -> None:
        """Notes that `epoch` of `epochs` is done."""
        with self._lock:
            self._running[self._name(trial_label), stage] = (epoch, epochs)

    def stage_finished(self, trial_label: str, record: StageRecord) -> None:
        trial_label = self._name(trial_label)
        if self._on_stage is not None:
            try:
                self._on_stage(trial_label, record)
            except Exception as error:
                self.callback_error = self.callback_error or error
        with self._lock:
            self._running.pop((trial_label, record.stage), None)
            self._note_pace(record)
            self._seen.add(record.key)
            self._trained += record.trained
            self._shared += not record.trained
            count, name = f"[{self._count()}] ", printable(trial_label)
            if self._live is not None:
                self._recent.append((count, name, _facts(record)))
            else:
                to_go = self._to_go()
                more = "" if to_go is None else f", {duration(to_go)} to go"
                self._print(Text(f"{count}{name}{_facts(record)}{more}"))

    def trial_failed(self, trial_label: str, message: str) -> None:
        trial_label = self._name(trial_label)
        with self._lock:
            self._failed += 1
            for key in [key for key in self._running if key[0] == trial_label]:
                del self._running[key]
            self._print(
                Text(f"{printable(trial_label)}: failed: {printable(message)}", style="red")
            )

    def host_lost(self, host: str, stages: int) -> None:
        """Says that a machine was lost under so many stages in training."""
        theirs = "its stage goes" if stages == 1 else f"its {stages} stages go"
        last = "its last checkpoint" if stages == 1 else "their last checkpoints"
        self.note(f"{host} was lost; {theirs} on from {last}")

    def start_broke(self, _: str, why: str) -> None:
        """Says that a worker group broke before it could train."""
        self.note(f"a worker group broke while it started ({why}); starting another")

    def note(self, message: str) -> None:
        """Prints one line that stays on the screen."""
        with self._lock:
            self._print(Text(printable(message)))

    def _print(self, line: Text) -> None:
        self._console.print(line, soft_wrap=True, highlight=False)

    def _done(self) -> int:
        return len(self._seen)

    def _count(self) -> str:
        if self._total is None:
            return str(self._done())
        # Stages that differ by configuration in vain (nothing was answered no) are trained once,
        # and the other way round a plan may be exceeded.
        total = max(self._total, self._done())
        return f"{self._done():>{len(str(total))}}/{total}"

    def _note_pace(self, record: StageRecord) -> None:
        if record.trained:
            self._training += record.seconds
        if record.key in self._seen:
            return
        if self._first is None:
            self._first = self._clock()
        else:
            self._paced += 1

    def _to_go(self) -> float | None:
        """Seconds, from the pace since the first stage of this run had finished: what it took to
        start says nothing of what is left. While few have, from the time that they trained, as if
        one stage followed the other.
        """
        if self._total is None or self._first is None:
            return None
        left = max(0, self._total - self._done())
        if self._paced >= _PACE:
            return left * (self._clock() - self._first) / self._paced
        return left * self._training / self._trained if self._trained else None

    def renderable(self) -> RenderableType:
        """What a terminal shows now."""
        with self._lock:
            parts: list[RenderableType] = [
                Text(_fitted(*line, self._console.width), style="dim", no_wrap=True)
                for line in self._recent
            ]
            return Group(*parts, self._table())

    def _table(self) -> Table:
        to_go = self._to_go()
        state = f"{self._count().strip()} stages" + (
            "" if to_go is None else f", {duration(to_go)} to go"
        )
        rows: list[tuple[str, str, RenderableType, str]] = [
            ("sweep", "bold", _bar(self._done(), self._total), state)
        ]
        for (label, stage), at in self._at_work():
            name = f"stage {stage} · {printable(label)}"
            if at is None:
                bar = _bar(0, None if self._live is None else 1)
                rows.append((name, "", bar, "at work"))
            else:
                rows.append((name, "", _bar(*at), f"epoch {at[0]} of {at[1]}"))
        # What is said of the whole sweep is never cut short; names are.
        room = self._console.width - _BAR - 2 * _GAP - max(len(said) for *_, said in rows)
        room = min(room, max(len(name) for name, *_ in rows))
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, _GAP, 0, 0))
        table.add_column(width=max(room, _SHORTEST), no_wrap=True, overflow="crop")
        table.add_column(width=_BAR)
        table.add_column(no_wrap=True)
        for name, style, bar, said in rows:
            table.add_row(Text(_cut(name, max(room, _SHORTEST)), style=style), bar, said)
        return table

    def _at_work(self) -> list[tuple[tuple[str, int], tuple[int, int] | None]]:
        """Stages that train, those first whose epochs are known, and as many at most as can train
        at once: on Ray a trial says that it begins a stage when it asks for a worker group.
        """
        known = sorted(self._running.items(), key=lambda item: item[1] is None)
        train = sum(at is not None for _, at in known)
        return known if self._workers is None else known[: max(train, self._workers)]


_BAR: Final = 20
_GAP: Final = 2


def _bar(done: int, total: int | None) -> RenderableType:
    return (
        Text("")
        if total is None
        else ProgressBar(total=max(total, done, 1), completed=done, width=_BAR)
    )


def _cut(name: str, room: int) -> str:
    return name if len(name) <= room else f"{name[: room - 1]}…"


def _by(metric: str) -> str:
    return "" if metric == TOP1 else f"{printable(metric)} "


def _facts(record: StageRecord) -> str:
    """`, stage 1: validation 91.0 %, 199.4 bits, trained in 4.1 s`."""
    parts = [
        (
            "no validation"
            if record.validation is None
            else f"validation {_by(record.metric)}{number(record.validation)} %"
        ),
        f"{number(record.bits)} bits",
    ]
    if record.guess_accuracy is not None:
        parts.append(f"{record.yes} yes / {record.no} no")
    parts.append(f"trained in {duration(record.seconds)}" if record.trained else "shared")
    return f", stage {record.stage}: {', '.join(parts)}"


def _fitted(count: str, name: str, facts: str, width: int) -> str:
    """One line of a terminal. Where it is too short, the name gives way, and the end of the facts
    after that: stage and accuracy stay.
    """
    room = width - len(count) - len(facts)
    return f"{count}{_cut(name, max(room, _SHORTEST))}{facts}"[:width]
