"""The laws of every plug-in, whatever its kind."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any


class PluginContract(ABC):
    """Every plug-in: its class is its settings."""

    @abstractmethod
    def make(self) -> Any:
        """Returns an object of the class under test."""

    def test_its_class_is_a_frozen_dataclass_with_a_name(self) -> None:
        plugin = self.make()
        cls: Any = type(plugin)
        assert is_dataclass(plugin), "must be a dataclass"
        assert cls.__dataclass_params__.frozen, "must be frozen"
        assert isinstance(cls.name, str), "needs a class attribute `name`"
        assert "name" not in {item.name for item in fields(plugin)}, "`name` must be a ClassVar"

    def test_two_of_equal_settings_are_equal_and_travel_between_processes(self) -> None:
        plugin = self.make()
        assert plugin == self.make()
        assert pickle.loads(pickle.dumps(plugin)) == plugin  # noqa: S301  # its own

    def test_its_settings_are_what_a_spec_can_hold(self) -> None:
        plugin = self.make()
        for item in fields(plugin):
            value = getattr(plugin, item.name)
            assert _is_plain(value), f"{item.name} = {value!r} is no text, number, flag or list"


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def loaded_by(plugin: Any, call: str, modules: Iterable[str]) -> list[str]:
    """Returns which of these modules a fresh process has loaded once it has called `plugin.call`.

    Args:
        call: the rest of the expression, such as `contents()`.
    """
    sent = pickle.dumps(plugin).hex()
    code = (
        f"import pickle, sys; pickle.loads(bytes.fromhex('{sent}')).{call};"
        f" print(*({set(modules)} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
