"""The laws of search algorithms."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

from orchestrator.catalogue import INSTALLED
from orchestrator.contracts.plugins import PluginContract
from orchestrator.search.algorithms import Row
from orchestrator.search.source import Source
from orchestrator.sweeps import folder
from orchestrator.sweeps.candidates import Candidate, load_candidates
from orchestrator.sweeps.layout import SweepLayout
from search_spaces.reading.config import Spec
from search_spaces.reading.spec import read_spec
from search_spaces.reading.trials import check_candidates, make_trial

_SPEC = """\
name: contract
dataset: {name: digits, validation: {from: split, per_class: 5}}
budget: {full_labels: 40}
base:
  method: {name: mean_teacher, epochs: 1}
  schedule: {initial_labels_per_class: 2, split: [0.5, 0.5]}
vary:
  method.consistency_weight: DOMAIN
  schedule.initial_labels_per_class: {choice: [1, 2, 3]}
seeds: [0, 1]
search: {algorithm: NAME, NUMBER seed: 7}
"""

NUMBER = 6
"""Candidates that a search of the contract draws."""


class SearchContract(PluginContract):
    """A search algorithm gives candidates that are valid trials, the same for the same spec, and
    goes on with those on record.
    """

    @abstractmethod
    def make(self) -> Any: ...

    def spec(self, number: int = NUMBER) -> Spec:
        """Returns the spec that the candidates are of: digits, with a weight and a number of
        initial labels to vary.
        """
        algorithm = self.make()
        draws = getattr(algorithm, "draws", True)
        text = (
            _SPEC.replace("NAME", algorithm.name)
            .replace("NUMBER", f"num_candidates: {number}," if draws else "")
            .replace("DOMAIN", "{loguniform: [1, 100]}" if draws else "{choice: [1, 10]}")
        )
        catalogue = INSTALLED.adding("search", type(algorithm))
        return read_spec(text, (), catalogue, path=Path("spec"), shown="spec")

    def rows(self, number: int = NUMBER) -> list[Row]:
        """Returns the candidates of one that is not adaptive."""
        return list(self.make().candidates(self.spec(number)))

    def opened(self, location: Path) -> tuple[Source, SweepLayout]:
        """Returns the source of an adaptive one over what is on record."""
        layout, spec = SweepLayout.at(location), self.spec()
        folder.create(spec, layout, data="none", engine="inline", device="cpu")
        return self.make().source(
            spec, layout, load_candidates(layout, spec.keys.catalogue)
        ), layout

    def drawn(self, source: Source, number: int) -> list[Candidate]:
        """Returns so many candidates, or fewer where there are no more, each told a value."""
        candidates: list[Candidate] = []
        while len(candidates) < number and (candidate := source.next()) is not None:
            source.tell(candidate, float(len(candidates)))
            candidates.append(candidate)
        return candidates

    def test_its_spec_is_read_and_every_candidate_is_a_valid_trial(self, tmp_path: Path) -> None:
        spec = self.spec()
        check_candidates(spec)
        if not self.make().adaptive:
            for cases, settings in self.rows():
                make_trial(spec, settings, spec.seeds[0], cases)

    def test_the_same_spec_gives_the_same_candidates(self, tmp_path: Path) -> None:
        if self.make().adaptive:
            first, again = (
                [c.id for c in self.drawn(self.opened(tmp_path / name)[0], 3)]
                for name in ("a", "b")
            )
            assert first == again
        else:
            assert self.rows() == self.rows()

    def test_as_many_are_drawn_as_are_asked_for(self, tmp_path: Path) -> None:
        algorithm = self.make()
        if algorithm.adaptive:
            source, layout = self.opened(tmp_path / "sweep")
            candidates = self.drawn(source, NUMBER + 3)
            assert len(candidates) == NUMBER
            assert len({candidate.id for candidate in candidates}) == NUMBER, (
                "one stands there twice"
            )
            assert source.next() is None
            catalogue = self.spec().keys.catalogue
            on_record = [one.id for one in load_candidates(layout, catalogue)]
            assert on_record == [one.id for one in candidates], "each is put on record, in order"
        elif getattr(algorithm, "draws", True):
            assert len(self.rows()) == NUMBER
        else:
            assert len(self.rows()) == 2 * 3, "two values of one key times three of another"

    def test_a_longer_search_begins_as_a_shorter_one(self, tmp_path: Path) -> None:
        algorithm = self.make()
        if not algorithm.adaptive and getattr(algorithm, "draws", True):
            assert self.rows(NUMBER + 5)[:NUMBER] == self.rows()

    def test_stopped_after_any_candidate_it_goes_on_with_those_on_record(
        self, tmp_path: Path
    ) -> None:
        if not self.make().adaptive:
            return
        for stop in (0, 1, NUMBER - 1, NUMBER):
            location = tmp_path / f"stopped-{stop}"
            before = self.drawn(self.opened(location)[0], stop)
            source, layout = self.opened(location)
            after: list[Candidate] = []
            while (candidate := source.next()) is not None:
                after.append(candidate)
            everything = {one.id for one in (*before, *after)}
            assert len(everything) == NUMBER
            # Nothing is on record of what they reached, so the first ones are given again.
            assert [one.id for one in after[:stop]] == [one.id for one in before]
            assert len(load_candidates(layout, self.spec().keys.catalogue)) == NUMBER
