"""Minimises a head's objective with SciPy's L-BFGS."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize as scipy_minimize
from threadpoolctl import threadpool_limits
from torch import Tensor

from trainers.head.objective import Objective
from trainers.stage import Diverged

WANTED: Final = 1e-8
"""Largest entry of the gradient at which the search ends: near what float64 can tell apart."""
ENOUGH: Final = 1e-6
"""Largest entry at which it may end where no step lowers the objective any further."""
MOST_STEPS: Final = 10_000


def minimise(
    objective: Objective, start: Tensor | None = None, *, remedy: str
) -> tuple[Tensor, int]:
    """Returns the weights at the minimum that is reached from `start`, [D + 1, C], and the number
    of steps.

    Args:
        start: float64 [D + 1, C], left as it is; None: zero.
        remedy: what to try where there is none; ends the sentence "try ...".

    Raises:
        Diverged: the search did not converge.

    Source: Byrd, Lu, Nocedal & Zhu 1995 (L-BFGS-B), with the strong Wolfe line search of Moré &
        Thuente 1994.
    """
    shape, device = objective.weights, objective.x.device

    def value(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        found, gradient = objective(torch.from_numpy(flat).view(shape).to(device))
        return found, gradient.cpu().numpy().ravel()

    # More threads would sum in another order, so that weights would depend on the number of cores.
    with threadpool_limits(1, "blas"):
        found: Any = scipy_minimize(
            value,
            np.zeros(shape).ravel() if start is None else start.cpu().numpy().flatten(),
            jac=True,
            method="L-BFGS-B",
            options={
                "gtol": WANTED,
                "ftol": 0.0,
                "maxiter": MOST_STEPS,
                "maxfun": 2 * MOST_STEPS,
            },
        )
    largest = float(np.abs(found.jac).max())
    # Written so that NaN fails too.
    if not largest <= ENOUGH:
        raise Diverged(
            f"the head did not converge: after {found.nit} steps the largest entry of its gradient"
            f" is {largest:.1g}, above {ENOUGH:.0e}; try {remedy}"
        )
    return torch.from_numpy(found.x).view(shape).to(device), int(found.nit)
