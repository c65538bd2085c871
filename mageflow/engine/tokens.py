"""The engine's token and handshake: what a client needs to find and enter it.

The SDK decodes the middle part of the token and never verifies the third, so the token is not signed; the engine
compares it whole. The third part is random, which makes the token a secret of this engine process.
"""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Handshake:
    """Connection data of a running engine, in the form ``Hatchet.from_embedded()`` reads.

    Attributes:
        token: the API token.
        tenant_id: UUID of the only tenant.
        grpc_address: ``host:port``.
        api_url: base URL of REST.
    """

    token: str
    tenant_id: str
    grpc_address: str
    api_url: str

    def to_json(self) -> str:
        """Return the handshake document."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Handshake:
        """Return the handshake in ``text``.

        Raises:
            ValueError: not JSON or a field is missing.
        """
        try:
            document = json.loads(text)
            return cls(**{name: str(document[name]) for name in cls.__dataclass_fields__})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a handshake of a local engine: {text!r}") from error


def issue_token(tenant_id: str, grpc_address: str, api_url: str) -> str:
    """Return a token whose claims lead a client to this engine."""
    header = _part({"alg": "none", "typ": "JWT"})
    claims = _part({"sub": tenant_id, "server_url": api_url, "grpc_broadcast_address": grpc_address})
    return f"{header}.{claims}.{secrets.token_urlsafe(24)}"


def _part(document: dict[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")
