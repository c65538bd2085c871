"""The engine's token and handshake: what a client needs to connect.

The SDK decodes the second part of the token and does not verify the third, so the token is not signed. The engine
compares the whole token. Its third part is random, so it cannot be guessed. A development engine keeps that part over
restarts, in a file that only its owner can read.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import uuid
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True, slots=True)
class Handshake:
    """Connection data of a running engine, in the form that ``Hatchet.from_embedded()`` reads.

    Attributes:
        token: the API token, for gRPC and REST.
        tenant_id: UUID of the one tenant.
        grpc_address: ``host:port`` of gRPC.
        api_url: base URL of the REST API, without a slash at its end.
    """

    token: str
    tenant_id: str
    grpc_address: str
    api_url: str

    def to_json(self) -> str:
        """Return the handshake as a JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Handshake:
        """Return the handshake that ``to_json`` wrote.

        Raises:
            ValueError: the text is not JSON, or a field is missing.
        """
        try:
            document = json.loads(text)
            return cls(**{each.name: str(document[each.name]) for each in fields(cls)})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a handshake of a local engine: {text!r}") from error


def issue_token(tenant_id: str, grpc_address: str, api_url: str, secret: str) -> str:
    """Return a token. Its claims hold the tenant and both addresses, from which a client finds the engine.

    Args:
        tenant_id: UUID of the tenant.
        grpc_address: ``host:port`` of gRPC.
        api_url: base URL of the REST API.
        secret: the third part. With the same arguments the token is the same.
    """
    header = _part({"alg": "none", "typ": "JWT"})
    claims = _part({"sub": tenant_id, "server_url": api_url, "grpc_broadcast_address": grpc_address})
    return f"{header}.{claims}.{secret}"


def new_secret() -> str:
    """Return the part of a token that cannot be guessed."""
    return secrets.token_urlsafe(24)


def tenant_of(secret: str) -> str:
    """Return the tenant of a secret: always the same UUID, from which the secret cannot be found."""
    return str(uuid.UUID(bytes=hashlib.sha256(secret.encode()).digest()[:16], version=4))


def _part(document: dict[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")
