"""What every plug-in of a kind must keep, as classes of tests that another package can run.

Subclass one, say how yours is made, and let pytest collect it:

    from orchestrator.contracts import QueryContract

    class TestSpread(QueryContract):
        def make(self):
            return Spread(of=5)

A check is a plain assert on your class alone; none needs a sweep or Ray.
"""

from orchestrator.contracts.labelling import (
    OracleContract,
    QueryContract,
    TaskContract,
)
from orchestrator.contracts.methods import MethodContract
from orchestrator.contracts.plugins import PluginContract
from orchestrator.contracts.searches import SearchContract
from orchestrator.contracts.sources import SourceContract
from orchestrator.contracts.stores import StoreContract

__all__ = [
    "MethodContract",
    "OracleContract",
    "PluginContract",
    "QueryContract",
    "SearchContract",
    "SourceContract",
    "StoreContract",
    "TaskContract",
]
