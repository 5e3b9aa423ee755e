"""The first purchase of a trial: which images are labelled before any question, and at what
price.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from orchestrator.labelling.keyed import keyed_uint64
from orchestrator.labelling.ledger import ROLES, Columns
from orchestrator.labelling.protocols import Oracle
from orchestrator.labelling.state import class_type
from orchestrator.labelling.terms import PoolTerms
from trainers.errors import DataError
from trainers.stage import Classes, Ids


def first_labels(terms: PoolTerms, oracle: Oracle) -> Columns:
    """Segment 0: validation images and D_S, by ascending id. What D_S costs is within the budget.

    Raises:
        DataError: the budget does not hold the labels asked for, or there are too few images.
    """
    _check(terms)
    split_ids, split_labels = np.empty(0, np.int64), np.empty(0, np.int32)
    if terms.validation.source == "split":
        split_ids, split_labels = oracle.validation_labels(terms.validation.per_class)
    if terms.initial_choice == "uniform":
        ids, labels = _uniform(terms, oracle, split_ids)
    elif terms.initial_choice == "priced_balanced":
        ids, labels = _until_balanced(terms, oracle, split_ids)
    else:
        ids, labels = oracle.initial_labels(terms.initial_labels_per_class, terms.seed, split_ids)
    all_ids = np.concatenate([ids, split_ids])
    order = np.argsort(all_ids, kind="stable")
    return {
        "id": all_ids[order].astype(np.int32),
        "label": (
            np.concatenate([labels, split_labels])[order].astype(class_type(terms.num_classes))
        ),
        "role": np.concatenate(
            [
                _roles(terms, ids, labels),
                np.full(split_ids.size, ROLES.index("split_validation"), np.int8),
            ]
        )[order],
    }


def _check(terms: PoolTerms) -> None:
    """What D_S costs at least is within the budget, and some of it is left to train on."""
    price = terms.initial_labels_per_class * terms.num_classes * terms.label_bits
    if price > terms.budget_bits + 1e-6:
        raise DataError(
            f"trial {terms.trial}: the initial labels cost {price:.1f} bits, and the budget is"
            f" {terms.budget_bits:.1f}; buy fewer or raise it"
        )
    per_class = terms.validation.per_class
    if terms.validation.source == "initial_labels" and per_class >= terms.initial_labels_per_class:
        raise DataError(
            f"trial {terms.trial}: validation takes {per_class} of {terms.initial_labels_per_class}"
            " initial labels a class and leaves none to train on; lower validation.per_class"
        )


def _blind_order(terms: PoolTerms, without: Ids) -> Ids:
    """Every image that may be bought, in the order of blind draws: the one in which `random` takes
    the images of each class.
    """
    ids = np.setdiff1d(np.arange(terms.pool_items), without, assume_unique=True)
    return ids[np.lexsort((ids, keyed_uint64("initial", terms.seed, ids)))]


def _uniform(terms: PoolTerms, oracle: Oracle, without: Ids) -> tuple[Ids, Classes]:
    """As many images as `initial_labels_per_class` of each class would be, of whatever classes."""
    wanted = terms.initial_labels_per_class * terms.num_classes
    order = _blind_order(terms, without)
    if order.size < wanted:
        raise DataError(
            f"trial {terms.trial}: {wanted} initial labels are asked for, and there are"
            f" {order.size} images; ask for fewer"
        )
    ids = np.sort(order[:wanted])
    return ids, oracle.full_labels(ids)


def _until_balanced(terms: PoolTerms, oracle: Oracle, without: Ids) -> tuple[Ids, Classes]:
    """Blind draws, all of them kept, up to the one that gives the last class its
    `initial_labels_per_class`. No label is asked for that is not paid for.
    """
    per_class, order = terms.initial_labels_per_class, _blind_order(terms, without)
    labels = np.empty(0, np.int32)
    held = np.zeros(terms.num_classes, np.int64)
    # As many labels as are missing must be drawn whatever they are, so none of them comes after the
    # last one needed.
    while missing := int(np.maximum(per_class - held, 0).sum()):
        if (labels.size + missing) * terms.label_bits > terms.budget_bits + 1e-6:
            scarce = int(held.argmin())
            raise DataError(
                f"trial {terms.trial}: after {labels.size} blind draws class {scarce} has"
                f" {held[scarce]} of its {per_class} labels, and a budget of"
                f" {terms.budget_bits:.1f} bits does not hold the {missing} that are missing at"
                " least; raise the budget, lower schedule.initial_labels_per_class, or write"
                " schedule.initial_choice: uniform. `orchestrate plan` shows how many draws it"
                " takes"
            )
        if labels.size + missing > order.size:
            scarce = int(held.argmin())
            raise DataError(
                f"trial {terms.trial}: class {scarce} has too few images for {per_class} initial"
                " labels; lower schedule.initial_labels_per_class"
            )
        drawn = oracle.full_labels(order[labels.size : labels.size + missing])
        labels = np.concatenate([labels, drawn])
        held += np.bincount(drawn, minlength=terms.num_classes)
    by_id = np.argsort(order[: labels.size])
    return order[by_id], labels[by_id]


def _roles(terms: PoolTerms, ids: Ids, labels: Classes) -> npt.NDArray[np.int8]:
    """Which of D_S are held out for validation: `per_class` of each class, or as many in all where
    D_S is of whatever classes.
    """
    roles = np.full(ids.size, ROLES.index("initial"), np.int8)
    if terms.validation.source != "initial_labels":
        return roles
    held_out = terms.validation.per_class
    keys = keyed_uint64("carve", terms.seed, ids)
    if terms.initial_choice == "uniform":
        roles[np.argsort(keys, kind="stable")[: held_out * terms.num_classes]] = ROLES.index(
            "initial_validation"
        )
        return roles
    order = np.lexsort((keys, labels))
    held = np.bincount(labels, minlength=terms.num_classes)
    rank = np.arange(ids.size) - (np.cumsum(held) - held)[labels[order]]
    roles[order[rank < held_out]] = ROLES.index("initial_validation")
    return roles
