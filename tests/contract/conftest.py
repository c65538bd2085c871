"""Clients that are configured and do not connect."""

import base64
import json

import pytest
from hatchet_sdk import ClientConfig, Hatchet
from hatchet_sdk.config import ClientTLSConfig

from mageflow import Mageflow


def _token() -> str:
    claims = {
        "sub": "00000000-0000-0000-0000-000000000000",
        "server_url": "http://127.0.0.1:1",
        "grpc_broadcast_address": "127.0.0.1:1",
    }
    return f"ey.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.x"


@pytest.fixture
def mageflow_hatchet() -> Hatchet:
    """A plain client."""
    return Hatchet(config=ClientConfig(token=_token(), tls_config=ClientTLSConfig(strategy="none")))


@pytest.fixture
def mageflow_client(mageflow_hatchet: Hatchet) -> Mageflow:
    """A client of mageflow."""
    return Mageflow(mageflow_hatchet)
