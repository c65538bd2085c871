"""Ports of servers that must know theirs before they start."""

import socket
from pathlib import Path

import pytest

from mageflow.testing.ports import free_port
from mageflow.testing.valkey import EmbeddedValkey

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def test_no_outgoing_connection_can_have_the_port() -> None:
    """A server that is down for a moment finds its port again."""
    if not RANGE.exists():
        pytest.skip("this system does not say which ports it gives to connections")
    first, last = map(int, RANGE.read_text().split())
    assert not {free_port() for _ in range(300)} & set(range(first, last + 1))


def test_a_server_whose_port_was_taken_meanwhile_takes_another() -> None:
    """Between the choice and the start. A port that the program gave is kept, and refused."""
    server = EmbeddedValkey()
    with socket.create_server(("127.0.0.1", server.port)) as other, server:
        assert server.port != other.getsockname()[1]
        assert server.keys_without_ttl("") == []
        port = server.port
        assert server.restart().port == port
