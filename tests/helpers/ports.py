"""Ports that a test may give to a server before that listens on them."""

from __future__ import annotations

import random
import socket
from typing import Final

FIRST, LAST = 20_000, 32_000
"""Above those that Ray gives to its workers, and below those that Linux gives to connections: of
these any could be taken by somebody's connection before the server is there.
"""

_DRAWN: Final = random.SystemRandom()


def free_port(host: str = "127.0.0.1") -> int:
    """Returns a port on which nobody listens and that no connection is given meanwhile."""
    while True:
        port = _DRAWN.randrange(FIRST, LAST)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
