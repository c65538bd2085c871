"""Who may send to a webhook: passwords, API keys and signatures, each checked as its source makes it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from mageflow.engine.errors import ForbiddenError, InvalidRequestError

_SLACK_TIMESTAMP = "X-Slack-Request-Timestamp"
_SLACK_SECONDS = 5 * 60
_STRIPE_SECONDS = 10 * 60
_SVIX_SECONDS = 5 * 60
_SVIX_SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix of all of them
_HASH_PREFIXES = ("sha1=", "sha256=", "sha512=", "md5=")

HASHES = {"SHA1": hashlib.sha1, "SHA256": hashlib.sha256, "SHA512": hashlib.sha512, "MD5": hashlib.md5}
"""Hash functions of signatures by their name in the API."""

ENCODINGS: Mapping[str, Callable[[bytes], str]] = {
    "HEX": bytes.hex,
    "BASE64": lambda digest: base64.b64encode(digest).decode(),
    "BASE64URL": lambda digest: base64.urlsafe_b64encode(digest).decode(),
}
"""Text forms of signatures by their name in the API."""


@dataclass(frozen=True, slots=True)
class BasicAuth:
    """The sender gives a user name and a password."""

    username: str
    password: str

    def check(self, headers: Mapping[str, str]) -> None:
        """Check the header ``Authorization``.

        Raises:
            ForbiddenError: it is missing, malformed or wrong.
        """
        scheme, _, encoded = headers.get("Authorization", "").partition(" ")
        try:
            username, separator, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:
            separator = username = password = ""
        if scheme.lower() != "basic" or not separator:
            raise ForbiddenError("missing or invalid authorization header")
        # Both are compared, so the time of an answer does not show which one is wrong.
        if not _equal(username, self.username) & _equal(password, self.password):
            raise ForbiddenError("invalid basic auth credentials")


@dataclass(frozen=True, slots=True)
class ApiKeyAuth:
    """The sender gives a key in a header."""

    header_name: str
    key: str

    def check(self, headers: Mapping[str, str]) -> None:
        """Check the header.

        Raises:
            ForbiddenError: it is missing or wrong.
        """
        given = headers.get(self.header_name, "")
        if not given:
            raise ForbiddenError(f"missing or invalid api key header: {self.header_name}")
        if not _equal(given, self.key):
            raise ForbiddenError(f"invalid api key: {self.header_name}")


@dataclass(frozen=True, slots=True)
class SignatureAuth:
    """The sender signs the body with a shared secret (HMAC).

    Attributes:
        algorithm: a key of ``HASHES``.
        encoding: a key of ``ENCODINGS``.
        header_name: the header with the signature.
        secret: the shared secret.
    """

    algorithm: str
    encoding: str
    header_name: str
    secret: str

    def check(self, source: str, headers: Mapping[str, str], body: bytes, now: datetime) -> None:
        """Check the signature of a body in the way of a source.

        Args:
            source: ``SLACK``, ``STRIPE`` and ``SVIX`` sign a time too and have their own headers; every other source
                signs the body.
            headers: of the request.
            body: of the request, as it came.
            now: the time, against which the signed time is checked.

        Raises:
            ForbiddenError: the signature is missing or wrong.
            InvalidRequestError: Stripe and Svix only: a header is malformed, or the signed time is too far away.
        """
        if source == "SLACK":
            self._check_slack(headers, body, now)
        elif source == "STRIPE":
            self._check_stripe(headers, body, now)
        elif source == "SVIX":
            self._check_svix(headers, body, now)
        else:
            self._compare(self._header(headers), body)

    def _check_slack(self, headers: Mapping[str, str], body: bytes, now: datetime) -> None:
        sent = headers.get(_SLACK_TIMESTAMP, "").strip()
        if not sent:
            raise ForbiddenError(f"missing or invalid timestamp header: {_SLACK_TIMESTAMP}")
        seconds = _integer(sent)
        if seconds is None:
            raise ForbiddenError("Invalid timestamp in header")
        if seconds < now.timestamp() - _SLACK_SECONDS:
            raise ForbiddenError("timestamp in header is out of range")
        signed = b"v0:%d:%b" % (seconds, body)
        self._compare(self._header(headers), signed, version="v0=")

    def _check_stripe(self, headers: Mapping[str, str], body: bytes, now: datetime) -> None:
        missing = f"missing or invalid signature header: {self.header_name}"
        header = headers.get(self.header_name, "")
        if not header:
            raise InvalidRequestError(missing)
        pairs = [each.split("=") for each in header.split(",")]
        if any(len(pair) != 2 for pair in pairs):  # noqa: PLR2004 - a key and a value
            raise InvalidRequestError(f"invalid signature header format: {self.header_name}")
        parts = {key.strip(): value.strip() for key, value in pairs}
        sent, signature = parts.get("t", ""), parts.get("v1", "")
        if not sent or not signature:
            raise InvalidRequestError(missing)
        seconds = _integer(sent)
        if seconds is None:
            raise InvalidRequestError("Invalid timestamp in signature header")
        if seconds < now.timestamp() - _STRIPE_SECONDS:
            raise InvalidRequestError("timestamp in signature header is out of range")
        self._compare(signature, b"%b.%b" % (sent.encode(), body))

    def _check_svix(self, headers: Mapping[str, str], body: bytes, now: datetime) -> None:
        """Check the signatures of Svix, which always are SHA-256 in base64 with a secret in base64."""
        for prefix in ("svix", "webhook"):
            message, sent, signatures = (
                headers.get(f"{prefix}-{each}", "") for each in ("id", "timestamp", "signature")
            )
            if message and sent and signatures:
                break
        else:
            raise InvalidRequestError("missing or invalid headers")
        seconds = _integer(sent)
        if seconds is None:
            raise InvalidRequestError("invalid timestamp header: invalid headers")
        if now.timestamp() - seconds > _SVIX_SECONDS:
            raise InvalidRequestError("invalid timestamp header: message too old")
        if seconds > now.timestamp() + _SVIX_SECONDS:
            raise InvalidRequestError("invalid timestamp header: message too new")
        try:
            key = base64.b64decode(self.secret.removeprefix(_SVIX_SECRET_PREFIX), validate=True)
        except binascii.Error as error:
            raise InvalidRequestError(f"the signing secret of a SVIX webhook must be base64: {error}") from error
        signed = b"%b.%d.%b" % (message.encode(), seconds, body)
        expected = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
        given = [each.split(",") for each in signatures.split(" ")]
        if not any(each[0] == "v1" and _equal(each[1], expected) for each in given if len(each) > 1):
            raise ForbiddenError("invalid SVIX signature")

    def _header(self, headers: Mapping[str, str]) -> str:
        signature = headers.get(self.header_name, "")
        if not signature:
            raise ForbiddenError(f"missing or invalid signature header: {self.header_name}")
        return signature

    def _compare(self, signature: str, signed: bytes, *, version: str = "") -> None:
        digest = hmac.new(self.secret.encode(), signed, HASHES[self.algorithm]).digest()
        expected = version + ENCODINGS[self.encoding](digest)
        if not _equal(_without_hash_name(signature), _without_hash_name(expected)):
            raise ForbiddenError("invalid HMAC signature")


Authentication: TypeAlias = BasicAuth | ApiKeyAuth | SignatureAuth
"""How a webhook knows its sender."""


def _equal(first: str, second: str) -> bool:
    return hmac.compare_digest(first.encode(), second.encode())


def _integer(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _without_hash_name(signature: str) -> str:
    signature = signature.strip()
    for prefix in _HASH_PREFIXES:
        signature = signature.removeprefix(prefix)
    return signature
