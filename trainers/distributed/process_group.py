"""Opens and closes the process group in which ranks train together."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import psutil
import torch.distributed as dist

from trainers.distributed.ranks import ALONE, Ranks

LONGEST_WAIT = timedelta(minutes=30)
"""A collective call that takes longer has lost a rank that nobody saw die."""
INTERFACE_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""Which network interface a rank tells the others to reach it at."""


@contextmanager
def process_group(
    *, rank: int, world_size: int, address: str, port: int, device: str
) -> Iterator[Ranks]:
    """This process is rank `rank` of `world_size` for the length of the block: gloo on CPUs, nccl
    on GPUs.

    Args:
        address: where rank 0 listens, on `port`.
    """
    if world_size == 1:
        yield ALONE
        return
    backend = "nccl" if device.startswith("cuda") else "gloo"
    with _reached_at(interface_towards(address)):
        dist.init_process_group(
            backend,
            init_method=f"tcp://{address}:{port}",
            rank=rank,
            world_size=world_size,
            timeout=LONGEST_WAIT,
        )
        try:
            yield Ranks(rank=rank, world_size=world_size)
        finally:
            dist.destroy_process_group()


def interface_towards(address: str) -> str | None:
    """Returns the network interface by which this machine reaches an IP address; None if that
    cannot be told.
    """
    try:
        family, kind, _, _, target = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            # Sends nothing: the kernel chooses the way.
            probe.connect(target)
            own = ipaddress.ip_address(probe.getsockname()[0].partition("%")[0])
    except (OSError, ValueError):
        return None
    for name, found in psutil.net_if_addrs().items():
        for entry in found:
            if entry.family != family:
                continue
            theirs = ipaddress.ip_address(entry.address.partition("%")[0])
            # All of 127.0.0.0/8 is the one loopback.
            if theirs == own or (theirs.is_loopback and own.is_loopback):
                return name
    return None


@contextmanager
def _reached_at(interface: str | None) -> Iterator[None]:
    """The others of the group reach this rank at the interface for the length of the block, unless
    its user has named one.

    Without a name, gloo takes the address of this machine's own name. Where that is 127.0.1.1, as
    on Debian, or unknown, the ranks of other machines wait for this one in vain.
    """
    given = [name for name in INTERFACE_VARIABLES if interface and name not in os.environ]
    # NCCL reads its own at the first collective call.
    os.environ.update(dict.fromkeys(given, interface or ""))
    try:
        yield
    finally:
        for name in given:
            os.environ.pop(name, None)
