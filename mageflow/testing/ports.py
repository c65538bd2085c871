"""TCP ports for servers that have to know their port before they start."""

import random
import socket

__all__ = ["free_port"]

_PORTS = range(20_000, 32_768)
"""Below the ports that Linux, macOS and Windows give to outgoing connections.

A port from the system (``bind`` to port 0) is one of those: a connection of any program can have it before the server
starts, or while a server is down that is to start again on it.
"""

_ATTEMPTS = 200


def free_port() -> int:
    """A port of 127.0.0.1 at which nothing listens now.

    Another program can still take it before the caller does, if it chooses ports in the same way.

    Returns:
        A port from 20000 to 32767.

    Raises:
        OSError: 200 ports in a row are taken.
    """
    draw = random.SystemRandom()
    for attempt in range(1, _ATTEMPTS + 1):
        with socket.socket() as probe:
            port = draw.choice(_PORTS)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                if attempt == _ATTEMPTS:
                    raise
            else:
                return port
    raise AssertionError("unreachable")
