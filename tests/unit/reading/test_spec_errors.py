"""Bad specs: one clear message with file, line, key and what is allowed; never another kind of
exception.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.catalogue import load_spec
from orchestrator.labelling.oracles.simulated import Labels, Noisy
from search_spaces.reading.config import Spec
from tests.helpers.specs import SEARCH, VALID, refusal, write


@dataclass(frozen=True)
class Bad:
    """A malformed spec: `old` of a valid one replaced by `new`. The guilty line carries the
    mark.
    """

    name: str
    old: str
    new: str
    says: str
    key: str | None = None
    of: str = VALID


MARK = "#@"

BAD = [
    Bad(
        "unknown_key",
        "    nls: true",
        "    consistancy_weight: 3 #@",
        'did you mean "consistency_weight"?',
        "method.consistancy_weight",
    ),
    Bad("unknown_section", "  query:", "  querry: #@", 'did you mean "query"?', "base.querry"),
    Bad("unknown_top_level", "resources:", "resource: #@", 'did you mean "resources"?', "resource"),
    Bad(
        "unknown_nested_key",
        "    per_class: 10",
        "    per_clas: 10 #@",
        'did you mean "per_class"?',
        "dataset.validation.per_clas",
    ),
    Bad(
        "method_at_top_level",
        "vary: {}",
        "method: {name: mean_teacher} #@",
        "belongs under base",
        "method",
    ),
    Bad(
        "budget_under_base",
        "  query:\n",
        "  budget: {bits: 3} #@\n  query:\n",
        "belongs at the top level",
        "budget",
    ),
    Bad(
        "text_for_number", "    epochs: 20", "    epochs: many #@", "whole number", "method.epochs"
    ),
    Bad("quoted_number", "    epochs: 20", '    epochs: "20" #@', "whole number", "method.epochs"),
    Bad(
        "fraction_for_whole",
        "    epochs: 20",
        "    epochs: 20.5 #@",
        "whole number",
        "method.epochs",
    ),
    Bad("number_for_flag", "    nls: true", "    nls: 1 #@", "true or false", "method.nls"),
    Bad(
        "flag_for_number",
        "    consistency_weight: 10",
        "    consistency_weight: true #@",
        "a number",
        "method.consistency_weight",
    ),
    Bad(
        "list_for_number", "    epochs: 20", "    epochs: [20] #@", "whole number", "method.epochs"
    ),
    Bad(
        "domain_in_base",
        "    consistency_weight: 10",
        "    consistency_weight: {loguniform: [1, 100]} #@",
        "under vary",
        "method.consistency_weight",
    ),
    Bad("null_for_number", "    epochs: 20", "    epochs: #@", "whole number", "method.epochs"),
    Bad(
        "scalar_for_section",
        "  query:\n    strategy: random\n    requery: pool\n",
        "  query: random #@\n",
        "must be a mapping",
        "query",
    ),
    Bad("negative_epochs", "    epochs: 20", "    epochs: -1 #@", "at least 1", "method.epochs"),
    Bad("ema_of_one", "    nls: true", "    ema_decay: 1.0 #@", "less than 1", "method.ema_decay"),
    Bad(
        "number_that_is_infinite",
        "    consistency_weight: 10",
        "    consistency_weight: .inf #@",
        "finite",
    ),
    Bad(
        "number_that_is_none",
        "    consistency_weight: 10",
        "    consistency_weight: NaN #@",
        "finite",
    ),
    Bad(
        "number_that_overflows",
        "    consistency_weight: 10",
        "    consistency_weight: 1e999 #@",
        "too large",
    ),
    Bad("number_with_many_digits", "    epochs: 20", f"    epochs: {'9' * 5000} #@", "digits"),
    Bad("ambiguous_flag", "    nls: true", "    nls: on #@", "write true or false"),
    Bad("octal_number", "    epochs: 20", "    epochs: 020 #@", "different numbers"),
    Bad("number_with_underscore", "    epochs: 20", "    epochs: 1_000 #@", "different numbers"),
    Bad("sexagesimal_number", "    epochs: 20", "    epochs: 1:30 #@", "different numbers"),
    Bad(
        "unknown_data_set",
        "  name: digits",
        "  name: digit #@",
        'did you mean "digits"?',
        "dataset.name",
    ),
    Bad(
        "unknown_strategy",
        "    strategy: random",
        "    strategy: randm #@",
        'did you mean "random"?',
        "query.strategy",
    ),
    Bad(
        "unknown_method",
        "    name: mean_teacher",
        "    name: fixmatch #@",
        "one of mean_teacher",
        "method.name",
    ),
    Bad(
        "unknown_requery",
        "    requery: pool",
        "    requery: sometimes #@",
        "one of pool, never",
        "query.requery",
    ),
    Bad(
        "backbone_for_features",
        "    nls: true",
        "    backbone: mlp #@",
        "does not take images",
        "method.backbone",
    ),
    Bad(
        "path_of_a_built_in_set",
        "  name: digits",
        "  name: digits\n  path: data #@",
        "data set digits has no such setting",
        "dataset.path",
    ),
    Bad(
        "size_of_a_built_in_set",
        "  name: digits",
        "  name: cifar10\n  image_size: 16 #@",
        "data set cifar10 has no such setting; write dataset.name: mini_imagenet or",
        "dataset.image_size",
    ),
    Bad(
        "empty_path",
        "  name: digits",
        "  name: folder\n  path: '' #@",
        "must be text that is not empty",
        "dataset.path",
    ),
    Bad(
        "folder_without_path",
        "  name: digits",
        "  name: folder #@",
        "needs dataset.path",
        "dataset.name",
    ),
    Bad(
        "folder_that_is_not_there",
        "  name: digits",
        "  name: folder\n  path: nowhere/at/all #@",
        "no such folder",
        "dataset.path",
    ),
    Bad(
        "features_that_are_not_there",
        "  name: digits",
        "  name: features\n  path: nowhere.npz #@",
        "no such file",
        "dataset.path",
    ),
    Bad(
        "shares_over_one",
        "    split: [0.5, 0.5]",
        "    split: [0.5, 0.6] #@",
        "sum to 1.1",
        "schedule.split",
    ),
    Bad(
        "shares_under_one",
        "    split: [0.5, 0.5]",
        "    split: [0.5, 0.4999] #@",
        "sum to 0.9999",
        "schedule.split",
    ),
    Bad(
        "negative_share",
        "    split: [0.5, 0.5]",
        "    split: [1.5, -0.5] #@",
        "from 0 to 1",
        "schedule.split",
    ),
    Bad(
        "text_as_share",
        "    split: [0.5, 0.5]",
        "    split: [half, 0.5] #@",
        "list of shares",
        "schedule.split",
    ),
    Bad(
        "scalar_as_split",
        "    split: [0.5, 0.5]",
        "    split: 0.5 #@",
        "list of shares",
        "schedule.split",
    ),
    Bad(
        "more_rounds_than_questions",
        "    initial_labels_per_class: 2\n    split:",
        "    initial_labels_per_class: 10\n    split: #@\n     ",
        "2 rounds share 0 questions",
        "schedule.split",
    ),
    Bad(
        "no_round_for_the_questions",
        "    split: [0.5, 0.5]",
        "    split: [] #@",
        "265 questions",
        "schedule.split",
    ),
    Bad(
        "neither_split_nor_stages",
        "    split: [0.5, 0.5]\n",
        "",
        "split: [0.5, 0.5]",
        "schedule.split",
    ),
    Bad(
        "stages_that_disagree",
        "    split: [0.5, 0.5]",
        "    split: [0.5, 0.5]\n    stages: 3 #@",
        "disagrees",
        "schedule.stages",
    ),
    Bad(
        "initial_labels_over_budget",
        "    initial_labels_per_class: 2",
        "    initial_labels_per_class: 11 #@",
        "|D_S| = 110 labels cost",
        None,
    ),
    Bad(
        "no_initial_labels",
        "    initial_labels_per_class: 2",
        "    initial_labels_per_class: 0 #@",
        "at least 1",
        "schedule.initial_labels_per_class",
    ),
    Bad(
        "two_budgets",
        "  full_labels: 100",
        "  full_labels: 100\n  bits: 332.2 #@",
        "not both",
        "budget.bits",
    ),
    Bad(
        "no_budget", "  full_labels: 100", "  mode: exact #@", "budget is not given", "budget.mode"
    ),
    Bad(
        "questions_in_exact",
        "  full_labels: 100",
        "  full_labels: 100\n  questions: 5 #@",
        "only in mode table",
        "budget.questions",
    ),
    Bad(
        "labels_in_table",
        "  full_labels: 100",
        "  mode: table\n  full_labels: 100 #@",
        "not full_labels",
        "budget.full_labels",
    ),
    Bad("budget_of_nothing", "  full_labels: 100", "  bits: 0 #@", "more than 0", "budget.bits"),
    Bad(
        "validation_larger_than_a_class",
        "    per_class: 10",
        "    per_class: 116 #@",
        "has 116",
        "dataset.validation.per_class",
    ),
    Bad(
        "validation_takes_all_initial",
        "    from: split\n    per_class: 10",
        "    from: initial_labels\n    per_class: 2 #@",
        "none is left",
        None,
    ),
    Bad(
        "unknown_validation",
        "    from: split",
        "    from: test #@",
        "one of split, share, initial_labels, none",
        "dataset.validation.from",
    ),
    Bad(
        "more_questions_than_images",
        "full_labels: 100",
        "bits: 1300",
        "at most once",
        "query.requery",
        VALID.replace("requery: pool", "requery: never #@"),
    ),
    Bad(
        "noise_without_noisy_oracle",
        "  query:",
        "  oracle:\n    false_yes: 0.1 #@\n  query:",
        "noisy",
        "oracle.false_yes",
    ),
    Bad(
        "unknown_key_in_case",
        "    schedule.split: []",
        "    schedule.spilt: [] #@",
        'did you mean "split"?',
        "schedule.spilt",
    ),
    Bad(
        "wrong_type_in_case",
        "    schedule.split: []",
        "    schedule.split: none #@",
        'case "full labels only"',
        "schedule.split",
    ),
    Bad(
        "bad_sum_in_case",
        "    schedule.split: []",
        "    schedule.split: [0.1, 0.2] #@",
        'case "full labels only"',
        "schedule.split",
    ),
    Bad("seeds_in_case", "    schedule.split: []", "    seeds: [3] #@", "whole sweep", "seeds"),
    Bad(
        "data_set_in_case",
        "    schedule.split: []",
        "    dataset.name: cifar10 #@",
        "cannot change the data set",
        "dataset.name",
    ),
    Bad(
        "case_that_is_a_list",
        "  two stages, NLS: {}",
        "  two stages, NLS: [] #@",
        "must be a mapping",
        "cases.two stages, NLS",
    ),
    Bad(
        "over_budget_in_case",
        "    schedule.initial_labels_per_class: 10",
        "    schedule.initial_labels_per_class: 20 #@",
        "200 labels cost",
        None,
    ),
    Bad(
        "same_key_twice_in_case",
        "    schedule.split: []",
        "    schedule.split: []\n    schedule: {split: []} #@",
        "twice",
        "schedule.split",
    ),
    Bad(
        "key_in_cases_and_vary",
        "vary: {}",
        "vary:\n  schedule.split: {choice: [[0.5, 0.5]]} #@",
        'the case "full labels only" sets it',
        "schedule.split",
    ),
    Bad(
        "continuous_grid",
        "vary: {}",
        "vary:\n  method.ema_decay: {uniform: [0.9, 0.99]} #@",
        "continuous",
        "method.ema_decay",
    ),
    Bad(
        "unknown_varied_key",
        "vary: {}",
        "vary:\n  method.ema: {choice: [0.9]} #@",
        "unknown key",
        "method.ema",
    ),
    Bad(
        "bare_list_as_domain",
        "vary: {}",
        "vary:\n  method.nls: [true, false] #@",
        "choice",
        "method.nls",
    ),
    Bad(
        "unknown_domain",
        "vary: {}",
        "vary:\n  method.ema_decay: {normal: [0, 1]} #@",
        "unknown kind of domain",
        "method.ema_decay",
    ),
    Bad(
        "domain_of_wrong_type",
        "vary: {}",
        "vary:\n  method.nls: {choice: [1, 0]} #@",
        "true or false",
        "method.nls",
    ),
    Bad(
        "domain_out_of_range",
        "vary: {}",
        "vary:\n  method.epochs: {int: [0, 3]} #@",
        "at least 1",
        "method.epochs",
    ),
    Bad(
        "uniform_for_whole",
        "vary: {}",
        "vary:\n  method.epochs: {uniform: [1, 3]} #@",
        "write {int: [1, 4]}",
        "method.epochs",
    ),
    Bad(
        "empty_choice",
        "vary: {}",
        "vary:\n  method.epochs: {choice: []} #@",
        "at least one",
        "method.epochs",
    ),
    Bad(
        "choice_twice",
        "vary: {}",
        "vary:\n  method.epochs: {choice: [3, 3]} #@",
        "twice",
        "method.epochs",
    ),
    Bad(
        "range_upside_down",
        "vary: {}",
        "vary:\n  method.epochs: {int: [4, 1]} #@",
        "below",
        "method.epochs",
    ),
    Bad(
        "section_as_varied_key",
        "vary: {}",
        "vary:\n  schedule: {stages: {int: [1, 2]}} #@",
        "is a section",
        "schedule",
    ),
    Bad("seeds_varied", "vary: {}", "vary:\n  seeds: {choice: [1]} #@", "whole sweep", "seeds"),
    Bad(
        "stages_varied_beside_a_split",
        "vary: {}",
        "vary:\n  schedule.stages: {int: [1, 2]} #@",
        "base lists the shares",
        "schedule.stages",
    ),
    Bad(
        "grid_too_large",
        "vary: {}",
        "vary:\n  method.epochs: {int: [1, 99999]} #@",
        "199998 candidates with 3 seeds each, 599994 trials; at most",
        "vary",
    ),
    Bad(
        "many_seeds",
        "seeds: [0, 1, 2]",
        f"seeds: {list(range(20_000))} #@",
        "asks for 2 candidates with 20000 seeds each, 40000 trials",
        "seeds",
    ),
    Bad(
        "many_cases",
        "cases:\n",
        "cases: #@\n" + "".join(f"  c{i}: {{}}\n" for i in range(7000)),
        "7002 candidates with 3 seeds",
        "cases",
    ),
    Bad(
        "long_search",
        "  num_candidates: 4",
        "  num_candidates: 100000 #@",
        "asks for 100000 candidates with 1 seed each",
        "search.num_candidates",
        SEARCH,
    ),
    Bad(
        "astronomic_grid",
        "vary: {}",
        "vary:\n  method.epochs: {int: [1, 99999]} #@\n  method.batch_size: {int: [2, 1000000]}",
        "599993400006 trials",
        "vary",
    ),
    Bad(
        "empty_seeds",
        "seeds: [0, 1, 2]",
        "seeds: [] #@",
        "a list of different whole numbers",
        "seeds",
    ),
    Bad("seed_twice", "seeds: [0, 1, 2]", "seeds: [0, 1, 0] #@", "twice", "seeds"),
    Bad(
        "negative_seed",
        "seeds: [0, 1, 2]",
        "seeds: [-1] #@",
        "seeds = -1: is no seed; seeds must be different whole numbers from 0",
        "seeds",
    ),
    Bad("huge_seed", "seeds: [0, 1, 2]", "seeds: [2147483648] #@", "to 2147483647", "seeds"),
    Bad(
        "seed_that_is_text",
        "seeds: [0, 1, 2]",
        "seeds: [0, one] #@",
        "seeds = 'one': is no seed",
        "seeds",
    ),
    Bad(
        "seeds_as_number",
        "seeds: [0, 1, 2]",
        "seeds: 3 #@",
        "a list of different whole numbers",
        "seeds",
    ),
    Bad(
        "unknown_algorithm",
        "  algorithm: grid",
        "  algorithm: gird #@",
        'did you mean "grid"?',
        "search.algorithm",
    ),
    Bad(
        "population_based_training",
        "  algorithm: grid",
        "  algorithm: pbt #@",
        "reported bits would be wrong",
        "search.algorithm",
    ),
    Bad(
        "several_objectives",
        "  algorithm: grid",
        "  algorithm: nsga2 #@\n  num_candidates: 4",
        "several objectives is not offered",
        "search.algorithm",
    ),
    Bad(
        "early_stopping",
        "  algorithm: grid",
        "  algorithm: grid\n  early_stopping: asha #@",
        "whole schedule",
        "search.early_stopping",
    ),
    Bad(
        "scheduler_at_top_level",
        "search:",
        "scheduler: asha #@\nsearch:",
        "early stopping is not offered",
        "scheduler",
    ),
    Bad(
        "grid_with_a_number",
        "  algorithm: grid",
        "  algorithm: grid\n  num_candidates: 4 #@",
        "every candidate",
        "search.num_candidates",
    ),
    Bad(
        "search_with_cases",
        "  algorithm: grid",
        "  algorithm: random #@\n  num_candidates: 4",
        "vary is empty",
        "search.algorithm",
    ),
    Bad("no_workers", "  workers: 1", "  workers: 0 #@", "at least 1", "resources.workers"),
    Bad(
        "batch_not_shared_equally",
        "  workers: 1",
        "  workers: 3 #@",
        "shared equally",
        "resources.workers",
    ),
    Bad(
        "one_and_a_half_gpus",
        "  workers: 1",
        "  gpus_per_worker: 1.5 #@",
        "whole",
        "resources.gpus_per_worker",
    ),
    Bad(
        "unknown_baseline",
        "seeds: [0, 1, 2]",
        "seeds: [0]\nbaseline: full label only #@",
        'did you mean "full labels only"?',
        "baseline",
    ),
    Bad(
        "ordering_of_an_unknown_case",
        "seeds: [0, 1, 2]",
        "seeds: [0]\norderings: [[full label only, full labels only]] #@",
        'did you mean "full labels only"?',
        "orderings",
    ),
    Bad(
        "ordering_of_one_case",
        "seeds: [0, 1, 2]",
        "seeds: [0]\norderings: [[full labels only]] #@",
        "is no pair of two different cases",
        "orderings",
    ),
    Bad(
        "ordering_of_a_case_and_itself",
        "seeds: [0, 1, 2]",
        "seeds: [0]\norderings: [[full labels only, full labels only]] #@",
        "is no pair of two different cases",
        "orderings",
    ),
    Bad(
        "orderings_that_are_no_list",
        "seeds: [0, 1, 2]",
        "seeds: [0]\norderings: full labels only #@",
        "must be a list of pairs of cases",
        "orderings",
    ),
    Bad("name_with_a_slash", "name: example", "name: ../example #@", "names a folder", "name"),
    Bad("name_that_is_a_number", "name: example", "name: 12 #@", "quotes", "name"),
    Bad("missing_name", "name: example\n", "", "must be given", "name"),
    Bad("missing_seeds", "seeds: [0, 1, 2]\n", "", "must be given", "seeds"),
    Bad(
        "missing_base",
        VALID[VALID.index("base:") : VALID.index("cases:")],
        "",
        "must be given",
        "base",
    ),
    Bad("missing_method_name", "    name: mean_teacher\n", "", "must be given", "method.name"),
    Bad(
        "key_written_twice",
        "    epochs: 20",
        "    epochs: 20\n    epochs: 30 #@",
        "first in line 14",
        "method.epochs",
    ),
    Bad(
        "python_tag", "    epochs: 20", "    epochs: !!python/object/apply:os.system [ls] #@", "tag"
    ),
    Bad("harmless_tag", "    epochs: 20", "    epochs: !!int 20 #@", "tag"),
    Bad("alias", "  workers: 1", "  workers: &a 1 #@", "anchors and aliases"),
    Bad("merge_key", "  workers: 1", "  <<: {workers: 1} #@", "merge keys", "resources.<<"),
    Bad("key_that_is_a_list", "  workers: 1", "  ? [workers] #@\n  : 1", "plain word"),
    Bad("second_document", "vary: {}", "--- #@\nvary: {}", "second YAML document"),
    Bad("tab_as_indent", "  workers: 1", "\tworkers: 1 #@", "not valid YAML"),
    Bad("open_bracket", "  workers: 1\n", "  workers: [1\n#@", "not valid YAML"),
    Bad("nul_byte", "  workers: 1", "  workers: \x001 #@", "NUL"),
    Bad("control_character", "  workers: 1", "  workers: \x071 #@", "does not allow"),
    Bad("deep_nesting", "  workers: 1", f"  workers: {'[' * 40}1{']' * 40} #@", "nested deeper"),
    Bad("impossible_escape", "name: example", 'name: "\\UFFFFFFFF"', "not valid YAML"),
    Bad("surrogate_escape", "name: example", 'name: "\\uD800" #@', "no character"),
    Bad(
        "adaptive_without_validation",
        "  name: digits",
        "  name: digits\n  validation: {from: none}",
        "learns from validation accuracy",
        "search.algorithm",
        SEARCH,
    ),
    Bad(
        "adaptive_without_a_number",
        "  num_candidates: 4\n",
        "",
        "needs num_candidates",
        "search.algorithm",
        SEARCH,
    ),
    Bad(
        "adaptive_with_cases",
        "seeds:",
        "cases: {a: {}}\nseeds:",
        "in a grid only",
        "search.algorithm",
        SEARCH,
    ),
    Bad(
        "simplex_that_does_not_fit",
        "  schedule.split:\n    simplex: {floor: 0.05",
        "  schedule.split: #@\n    simplex: {floor: 0.3",
        "sum to more than 1",
        "schedule.split",
        SEARCH,
    ),
    Bad(
        "simplex_with_an_odd_step",
        "step: 0.05}",
        "step: 0.3}",
        "whole number",
        "schedule.split",
        SEARCH,
    ),
    Bad(
        "simplex_of_a_number",
        "  method.consistency_weight:\n    loguniform: [1, 100]",
        "  method.epochs: {simplex: {}} #@",
        "simplex is for",
        "method.epochs",
        SEARCH,
    ),
    Bad(
        "loguniform_from_zero",
        "consistency_weight:\n    loguniform: [1, 100]",
        "consistency_weight: #@\n    loguniform: [0, 100]",
        "above 0",
        "method.consistency_weight",
        SEARCH,
    ),
    Bad(
        "end_of_a_domain_over_budget",
        "seeds:",
        "  schedule.initial_labels_per_class: {choice: [2, 11]} #@\nseeds:",
        "110 labels cost",
        None,
        SEARCH,
    ),
    Bad(
        "end_of_a_domain_without_rounds",
        "int: [1, 4]",
        "int: [0, 4]",
        "there is no round",
        None,
        SEARCH,
    ),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_a_malformed_spec_is_refused_with_file_line_and_key(bad: Bad, tmp_path: Path) -> None:
    assert bad.of.count(bad.old) >= 1, "the replacement must hit"
    text = bad.of.replace(bad.old, bad.new, 1)
    path = write(tmp_path, text)
    error = refusal(path)
    assert error.file == path
    assert bad.says in str(error), str(error)
    if MARK in text:
        assert error.line == text[: text.index(MARK)].count("\n") + 1
        assert str(error).startswith(f"{path}:{error.line}: ")
    if bad.key is not None:
        assert error.key == bad.key
    assert "\n" not in str(error) and str(error).isprintable()


def test_the_specs_that_the_malformed_ones_start_from_are_valid(tmp_path: Path) -> None:
    assert isinstance(load_spec(write(tmp_path, VALID)), Spec)
    assert isinstance(load_spec(write(tmp_path, SEARCH)), Spec)


def test_a_key_written_twice_names_the_other_place(tmp_path: Path) -> None:
    path = write(tmp_path, VALID)
    for override, key in (
        ("search={seed: 1, seed: 2}", "search.seed"),
        ("base={method: {epochs: 1}, method.epochs: 2}", "method.epochs"),
        ("cases={a: {method.nls: true, method: {nls: false}}}", "method.nls"),
        ("vary={method.nls: {choice: [true]}, base.method.nls: {choice: [true]}}", "method.nls"),
    ):
        error = refusal(path, override)
        assert error.key == key and str(error).endswith(
            "the key is written twice; keep one of them"
        ), str(error)
    text = VALID.replace("    epochs: 20", "    epochs: 20\n  method.epochs: 30 #@")
    assert (
        "bad.yaml:15: method.epochs: the key is written twice, first in line 14; keep one of them"
        in str(refusal(write(tmp_path, text)))
    )
    varied = refusal(
        write(tmp_path, VALID),
        "vary.schedule.split={choice: [[0.5, 0.5]]}",
        "cases={a: {schedule.split: [1.0]}}",
    )
    assert 'the case "a" sets it in --set cases={a: {schedule.split: [1.0]}}' in str(varied)
    assert f'the case "full labels only" sets it in {path}:24' in str(
        refusal(path, "vary.schedule.split={choice: [[0.5, 0.5]]}")
    )


LONG = "x" * 500_000


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: example", f"name: {LONG}"),
        ("  name: digits", f'  name: folder\n  path: "{LONG}"'),
        ("  name: digits", f'  name: features\n  path: "{LONG}"'),
        ("  name: digits", '  name: folder\n  path: "' + "y/" * 2000 + '"'),
        ("  name: digits", f'  name: "{LONG}"'),
        ("  workers: 1", f'  workers: "{LONG}"'),
        ("vary: {}", f"vary:\n  method.nls:\n    ? {LONG}\n    : 1"),
        ("  two stages, NLS: {}", f"  ? {LONG}\n  : {{}}"),
        ("resources:", f"? {LONG}\n: 1\nresources:"),
        ("seeds: [0, 1, 2]", f"seeds: [0]\nbaseline: {LONG}"),
        ("seeds: [0, 1, 2]", f"seeds: {LONG}"),
    ],
)
def test_a_message_is_short_however_long_the_value(old: str, new: str, tmp_path: Path) -> None:
    error = refusal(write(tmp_path, VALID.replace(old, new)))
    assert len(str(error)) < 2500


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: example", 'name: "\\e[31mred"'),
        ("  name: digits", '  name: folder\n  path: "/\\e[31mred\\a\\u202e"'),
        ("  name: digits", '  name: features\n  path: "/\\e]0;title\\a"'),
        ("  two stages, NLS: {}", '  "\\e[31mred": {}'),
        ("  two stages, NLS: {}", '  "two stages, NLS": {"\\e[31mred": 1}'),
        ("vary: {}", 'vary: {"\\e[31mred": {}}'),
        ("vary: {}", 'vary: {method.nls: {"\\e[31mred": 1}}'),
        ("seeds: [0, 1, 2]", 'seeds: [0]\nbaseline: "\\e[31mred"'),
        ("    requery: pool", '    requery: "\\e[31mred"'),
    ],
)
def test_terminal_escapes_in_names_are_printed_escaped(old: str, new: str, tmp_path: Path) -> None:
    error = refusal(write(tmp_path, VALID.replace(old, new)))
    assert str(error).isprintable() and "\\x1b" in str(error)


def test_terminal_escapes_in_a_files_name_are_printed_escaped(tmp_path: Path) -> None:
    for name in ("\x1b[31mred.yaml", "\u202ereversed.yaml"):
        assert str(refusal(str(tmp_path / name))).isprintable()
        (tmp_path / name).write_text("- a\n")
        assert str(refusal(str(tmp_path / name))).isprintable()
        assert str(
            refusal(write(tmp_path, VALID), f"dataset={{name: folder, path: {name!r}}}")
        ).isprintable()


class TestFiles:
    def test_a_missing_file_suggests_a_near_name(self) -> None:
        assert 'did you mean "ablations.yaml"?' in str(refusal("ablation.yaml"))

    def test_a_missing_path_names_the_packaged_specs(self) -> None:
        assert "ablations.yaml" in str(refusal("zzz/qqq.yml"))

    def test_a_folder_is_no_spec(self, tmp_path: Path) -> None:
        assert "is a folder" in str(refusal(str(tmp_path)))

    @pytest.mark.parametrize("text", ["", "   \n# only a comment\n", "null\n"])
    def test_an_empty_file_is_no_spec(self, text: str, tmp_path: Path) -> None:
        assert "is empty" in str(refusal(write(tmp_path, text)))

    @pytest.mark.parametrize("text", ["- a\n- b\n", "just text\n", "3\n"])
    def test_the_top_level_must_be_a_mapping(self, text: str, tmp_path: Path) -> None:
        error = refusal(write(tmp_path, text))
        assert "must be a mapping" in str(error) and error.line == 1

    def test_a_file_in_another_encoding_names_the_line(self, tmp_path: Path) -> None:
        path = tmp_path / "latin.yaml"
        path.write_bytes("name: a\n# Größe\n".encode("latin-1"))
        error = refusal(str(path))
        assert "UTF-8" in str(error) and error.line == 2

    def test_a_file_in_utf_16_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "wide.yaml"
        path.write_bytes(VALID.encode("utf-16"))
        refusal(str(path))

    def test_a_huge_file_is_refused_before_it_is_parsed(self, tmp_path: Path) -> None:
        assert "larger than" in str(refusal(write(tmp_path, VALID + "# " + "x" * (1 << 20))))

    def test_an_alias_bomb_is_refused_at_its_first_anchor(self, tmp_path: Path) -> None:
        lines = ["a0: &a0 [x, x]"] + [
            f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)
        ]
        error = refusal(write(tmp_path, "\n".join(lines)))
        assert "anchors and aliases" in str(error) and error.line == 1

    @pytest.mark.parametrize("kind", ["pipe", "endless", "nothing", "circle"])
    def test_what_is_no_file_is_refused_at_once(self, kind: str, tmp_path: Path) -> None:
        path = tmp_path / "spec.yaml"
        if kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to(
                {"endless": "/dev/zero", "nothing": "gone.yaml", "circle": "spec.yaml"}[kind]
            )
        says = (
            "not a regular file"
            if kind in ("pipe", "endless")
            else "is a link to a file that is not there"
        )
        assert says in str(refusal(str(path)))

    def test_a_home_folder_is_found_and_one_of_nobody_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        write(tmp_path, VALID)
        assert load_spec("~/bad.yaml").name == "example"
        assert "no home folder for ~nouser" in str(refusal("~nouser/bad.yaml"))
        error = refusal("smoke.yaml", "dataset={name: features, path: ~nouser/x.npz}")
        assert error.key == "dataset.path"

    def test_a_device_is_no_spec(self) -> None:
        assert "not a regular file" in str(refusal("/dev/null"))

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_an_unreadable_file_says_so(self, tmp_path: Path) -> None:
        path = Path(write(tmp_path, VALID))
        path.chmod(0)
        assert "Permission denied" in str(refusal(str(path)))

    @pytest.mark.parametrize("name", ["", "a\x00b", "x" * 5000, "ablations.yaml/inside"])
    def test_a_name_that_cannot_be_a_file_is_refused(self, name: str) -> None:
        refusal(name)


class TestGoodSpecs:
    def test_an_exponent_without_a_point_is_a_number(self, tmp_path: Path) -> None:
        spec = load_spec(write(tmp_path, VALID.replace("    nls: true", "    weight_decay: 1e-3")))
        assert spec.base["method.weight_decay"] == 0.001

    def test_an_override_replaces_the_other_way_to_write_the_budget(self, tmp_path: Path) -> None:
        spec = load_spec(write(tmp_path, VALID), ["budget.bits=400", "cases={}"])
        assert spec.base["budget.bits"] == 400.0
        assert spec.base["budget.full_labels"] is None

    def test_the_last_of_equal_overrides_holds(self, tmp_path: Path) -> None:
        spec = load_spec(
            write(tmp_path, VALID),
            ["method.epochs=5", "base.method.epochs=7", "seeds=[4]", "resources.max_concurrent=3"],
        )
        assert spec.base["method.epochs"] == 7
        assert spec.seeds == (4,)
        assert spec.resources.max_concurrent == 3

    def test_a_domain_may_be_set_on_the_command_line(self, tmp_path: Path) -> None:
        spec = load_spec(write(tmp_path, VALID), ["vary.method.nls={choice: [true, false]}"])
        assert list(spec.vary) == ["method.nls"]

    def test_the_text_is_kept_as_given(self, tmp_path: Path) -> None:
        text = VALID + "# größer\n"
        assert load_spec(write(tmp_path, text)).text == text

    def test_a_noisy_oracle_errs_as_people_did_unless_told_otherwise(self, tmp_path: Path) -> None:
        text = VALID.replace(
            "  two stages, NLS: {}",
            "  two stages, NLS: {oracle.name: noisy}\n  own: {oracle.name: noisy, oracle.false_no:"
            " 0.5}",
        )
        from search_spaces.reading.trials import enumerate_trials

        trials = enumerate_trials(load_spec(write(tmp_path, text)))
        assert trials is not None
        oracles = {trial.cases[0]: trial.config.oracle for trial in trials}
        assert oracles == {
            "full labels only": Labels(),
            "two stages, NLS": Noisy(),
            "own": Noisy(false_no=0.5),
        }
        assert (Noisy().false_yes, Noisy().false_no) == (0.077, 0.077)
