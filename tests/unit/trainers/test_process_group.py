"""At which of its addresses a rank lets itself be reached."""

from __future__ import annotations

import os
import socket

import psutil
import pytest
import torch
import torch.distributed as dist

from tests.helpers.ports import free_port
from trainers.distributed.process_group import (
    INTERFACE_VARIABLES,
    interface_towards,
    process_group,
)


def own_addresses() -> list[tuple[str, str]]:
    """Each interface that is up, with an address of version 4 that it alone has."""
    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    return [
        (name, entry.address)
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if entry.family == socket.AF_INET and name in up
    ]


def test_each_address_of_this_machine_is_reached_by_the_interface_that_has_it() -> None:
    found = own_addresses()
    assert found
    for name, address in found:
        assert interface_towards(address) == name


def test_all_of_the_loopback_is_one_interface() -> None:
    assert interface_towards("127.0.0.1") == interface_towards("127.0.0.2") is not None


@pytest.mark.parametrize("address", ["no-such-host.invalid", "999.1.1.1", ""])
def test_an_address_without_a_way_names_none(address: str) -> None:
    assert interface_towards(address) is None


@pytest.mark.parametrize("given", [None, "lo"])
def test_a_rank_names_the_way_to_the_first_rank_unless_its_user_has(
    given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in INTERFACE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    if given is not None:
        monkeypatch.setenv(INTERFACE_VARIABLES[0], given)
    seen: list[str | None] = []

    def note(*_: object, **__: object) -> None:
        seen.extend(os.environ.get(name) for name in INTERFACE_VARIABLES)

    monkeypatch.setattr(dist, "init_process_group", note)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    way = interface_towards("127.0.0.1")
    with process_group(rank=0, world_size=2, address="127.0.0.1", port=1, device="cpu") as ranks:
        assert ranks.first
    assert seen == [given or way, way]
    assert [os.environ.get(name) for name in INTERFACE_VARIABLES] == [given, None]


def test_a_group_is_joined_and_left() -> None:
    """A real one of two processes, at an address that is not the loopback if there is one."""
    port = free_port()
    context = torch.multiprocessing.get_context("spawn")
    answers = context.Queue()
    ranks = [context.Process(target=_rank, args=(rank, port, answers)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    assert sorted(answers.get(timeout=120) for _ in ranks) == [3.0, 3.0]
    for rank in ranks:
        rank.join()


def _rank(rank: int, port: int, answers: object) -> None:
    address = own_addresses()[-1][1]
    with process_group(rank=rank, world_size=2, address=address, port=port, device="cpu"):
        total = torch.tensor([rank + 1.0])
        dist.all_reduce(total)
        answers.put(float(total))  # type: ignore[attr-defined]
