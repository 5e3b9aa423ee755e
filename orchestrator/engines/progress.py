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
from orchestrator.sweeps.stage_records import StageRecord

OnStage = Callable[[str, StageRecord], None]
"""Called with the trial's label and the record of a stage that it has finished."""


_PACE: Final = 5
"""Stages from which on they have a pace: several at once finish together, and say nothing."""


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
        clock: Callable[[], float] = time.monotonic,
        on_stage: OnStage | None = None,
    ) -> None:
        """total_stages: distinct stage trainings, None where a search does not know yet. done: keys
        of those that earlier runs left finished.
        """
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
        self._recent: deque[Text] = deque(maxlen=4)
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
            self._running[trial_label, stage] = None

    def epoch(self, trial_label: str, stage: int, epoch: int, epochs: int) -> None:
        """Notes that `epoch` of `epochs` is done."""
        with self._lock:
            self._running[trial_label, stage] = (epoch, epochs)

    def stage_finished(self, trial_label: str, record: StageRecord) -> None:
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
            line = Text(f"[{self._count()}] {_line(trial_label, record)}")
            if self._live is not None:
                self._recent.append(line)
            else:
                to_go = self._to_go()
                self._print(line if to_go is None else line.append(f", {duration(to_go)} to go"))

    def trial_failed(self, trial_label: str, message: str) -> None:
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
                Text(line.plain, style="dim", overflow="ellipsis", no_wrap=True)
                for line in self._recent
            ]
            return Group(*parts, self._table())

    def _table(self) -> Table:
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(ratio=3, overflow="ellipsis", no_wrap=True)
        table.add_column(width=24)
        table.add_column(no_wrap=True)
        to_go = self._to_go()
        state = f"{self._count().strip()} stages" + (
            "" if to_go is None else f", {duration(to_go)} to go"
        )
        table.add_row(Text("sweep", style="bold"), _bar(self._done(), self._total), state)
        for (label, stage), at in list(self._running.items()):
            name = Text(f"{printable(label)} · stage {stage}")
            if at is None:
                table.add_row(
                    name, _bar(0, None if self._live is None else 1), Text("at work", style="dim")
                )
            else:
                table.add_row(name, _bar(*at), f"epoch {at[0]} of {at[1]}")
        return table


def _bar(done: int, total: int | None) -> RenderableType:
    return (
        Text("")
        if total is None
        else ProgressBar(total=max(total, done, 1), completed=done, width=24)
    )


def _line(label: str, record: StageRecord) -> str:
    """`two stages, NLS, seed 0, stage 1: 199.4 bits, validation 91.0 %, trained in 4.1 s`."""
    parts = [f"{number(record.bits)} bits"]
    if record.guess_accuracy is not None:
        parts.append(f"{record.yes} yes / {record.no} no")
    parts.append(
        "no validation"
        if record.validation is None
        else f"validation {number(record.validation)} %"
    )
    parts.append(f"trained in {duration(record.seconds)}" if record.trained else "shared")
    return f"{printable(label)}, stage {record.stage}: {', '.join(parts)}"
