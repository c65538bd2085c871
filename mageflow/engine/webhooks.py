"""Incoming webhooks: a request of another service becomes a user event."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast
from urllib.parse import parse_qs

from mageflow.engine.clock import Clock
from mageflow.engine.errors import InvalidRequestError, NotFoundError
from mageflow.engine.events import Events
from mageflow.engine.expressions import ExpressionError, evaluate
from mageflow.engine.model import UserEvent
from mageflow.engine.parsing import check_no_nul
from mageflow.engine.values import JsonObject
from mageflow.engine.webhook_authentication import Authentication, SignatureAuth

_log = logging.getLogger("mageflow.engine.webhooks")

SOURCES = frozenset({"GENERIC", "GITHUB", "STRIPE", "SLACK", "LINEAR", "SVIX"})
"""The services whose requests a webhook can take."""

_FORM = "application/x-www-form-urlencoded"
# They are path parameters of the endpoint, and Hatchet takes them out of the payload.
_PATH_PARAMETERS = ("tenant", "v1-webhook")


@dataclass(slots=True, kw_only=True, eq=False)
class Webhook:
    """One webhook.

    Attributes:
        source: one of ``SOURCES``.
        event_key: CEL over ``input`` and ``headers`` (names in lower case) that gives the key of the event.
        scope: CEL that gives the scope of the event; None leaves it out.
        static_payload: goes over the fields of the request's body.
        returns_event: whether the sender is sent the event; otherwise an empty answer.
    """

    name: str
    source: str
    event_key: str
    authentication: Authentication
    created_at: datetime
    updated_at: datetime
    scope: str | None = None
    static_payload: JsonObject = field(default_factory=dict[str, Any])
    returns_event: bool = True


@dataclass(frozen=True, slots=True)
class Challenge:
    """Slack verifies an address: the answer is the text that it sent."""

    text: str


class Webhooks:
    """All webhooks.

    Args:
        clock: times.
        events: takes the events.

    Attributes:
        entries: by name, oldest first.
    """

    def __init__(self, clock: Clock, events: Events) -> None:
        self.entries: dict[str, Webhook] = {}
        self._clock = clock
        self._events = events

    def get(self, name: str) -> Webhook:
        """Return a webhook.

        Raises:
            NotFoundError: the name is unknown.
        """
        found = self.entries.get(name)
        if found is None:
            raise NotFoundError(f"no webhook {name!r}")
        return found

    def add(
        self,
        name: str,
        *,
        source: str,
        event_key: str,
        authentication: Authentication,
        scope: str | None = None,
        static_payload: JsonObject | None = None,
        returns_event: bool = True,
    ) -> Webhook:
        """Add a webhook. The arguments are attributes of ``Webhook``.

        Raises:
            InvalidRequestError: the name is empty or taken, the source is unknown, or a source that signs its requests
                is given another authentication.
        """
        if not name or name in self.entries:
            raise InvalidRequestError(f"webhook {name!r} exists already" if name else "a webhook needs a name")
        if source not in SOURCES:
            raise InvalidRequestError(f"unknown source {source!r}: choose one of {', '.join(sorted(SOURCES))}")
        if source in {"SLACK", "STRIPE", "SVIX"} and not isinstance(authentication, SignatureAuth):
            raise InvalidRequestError(f"a {source} webhook needs HMAC authentication: {source} signs its requests")
        now = self._clock.now()
        added = Webhook(
            name=name,
            source=source,
            event_key=event_key,
            authentication=authentication,
            created_at=now,
            updated_at=now,
            scope=scope or None,
            static_payload=static_payload or {},
            returns_event=returns_event,
        )
        self.entries[name] = added
        return added

    def update(
        self,
        name: str,
        *,
        event_key: str | None = None,
        scope: str | None = None,
        static_payload: JsonObject | None = None,
        returns_event: bool | None = None,
    ) -> Webhook:
        """Change a webhook. None leaves a field as it is, and an empty ``scope`` removes the expression.

        Raises:
            NotFoundError: the name is unknown.
        """
        changed = self.get(name)
        if event_key is not None:
            changed.event_key = event_key
        if scope is not None:
            changed.scope = scope or None
        if static_payload is not None:
            changed.static_payload = static_payload
        if returns_event is not None:
            changed.returns_event = returns_event
        changed.updated_at = self._clock.now()
        return changed

    def remove(self, name: str) -> Webhook:
        """Delete a webhook, and return it.

        Raises:
            NotFoundError: the name is unknown.
        """
        removed = self.get(name)
        del self.entries[name]
        return removed

    def receive(self, name: str, headers: Mapping[str, str], body: bytes) -> UserEvent | Challenge:
        """Check the sender, and push the event.

        Args:
            name: of the webhook.
            headers: of the request; names are compared without regard to case.
            body: JSON, or a form for the sources ``GENERIC`` and ``SLACK``.

        Raises:
            NotFoundError: the name is unknown.
            ForbiddenError: the sender is not who the webhook expects.
            InvalidRequestError: the body cannot be read, or an expression gives no text. The text of the error is
                Hatchet's; the engine's log has the cause.
        """
        webhook = self.get(name)
        challenge = _challenge(webhook, body)
        if challenge is not None:
            return challenge
        if isinstance(webhook.authentication, SignatureAuth):
            webhook.authentication.check(webhook.source, headers, body, self._clock.now())
        else:
            webhook.authentication.check(headers)
        payload = {**_payload(webhook, headers.get("Content-Type", ""), body), **webhook.static_payload}
        variables = {"input": payload, "headers": {key.lower(): value for key, value in headers.items()}}
        key = _event_key(webhook, variables)
        return self._events.push(key, payload, scope=_scope(webhook, variables), webhook_name=webhook.name)


def _challenge(webhook: Webhook, body: bytes) -> Challenge | None:
    if webhook.source != "SLACK":
        return None
    try:
        document = json.loads(body)
    except ValueError:
        return None
    text = cast("JsonObject", document).get("challenge") if isinstance(document, dict) else None
    return Challenge(text) if isinstance(text, str) and text else None


def _payload(webhook: Webhook, content_type: str, body: bytes) -> JsonObject:
    payload = _form(webhook, body) if _FORM in content_type else _json(body, "failed to unmarshal request body")
    return {key: value for key, value in payload.items() if key not in _PATH_PARAMETERS}


def _form(webhook: Webhook, body: bytes) -> JsonObject:
    if webhook.source not in {"GENERIC", "SLACK"}:
        raise InvalidRequestError(f"form-encoded requests are not supported for webhook source: {webhook.source}")
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True)
    except ValueError as error:
        raise InvalidRequestError("Failed to parse form data") from error
    # Slack sends a button press as JSON in one field, and the fields of a command as they are.
    interaction = fields.get("payload", [""])[0]
    if webhook.source == "SLACK" and interaction:
        return _json(interaction.encode(), "Failed to unmarshal payload parameter as JSON")
    return {key: values[0] for key, values in fields.items()}


def _json(text: bytes, refusal: str) -> JsonObject:
    check_no_nul(text, "request body")
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InvalidRequestError(refusal) from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise InvalidRequestError(refusal)
    return cast("JsonObject", document)


def _event_key(webhook: Webhook, variables: Mapping[str, object]) -> str:
    try:
        key = evaluate(webhook.event_key, variables)
    except ExpressionError as error:
        _log.warning("webhook %s: the expression of the event key fails: %s", webhook.name, error)
        raise InvalidRequestError("Event key evaluated to an empty string") from error
    if not isinstance(key, str):
        raise InvalidRequestError("Event key expression must evaluate to a string")
    return key


def _scope(webhook: Webhook, variables: Mapping[str, object]) -> str | None:
    if webhook.scope is None:
        return None
    try:
        scope = evaluate(webhook.scope, variables)
    except ExpressionError as error:
        _log.warning("webhook %s: the expression of the scope fails: %s", webhook.name, error)
        raise InvalidRequestError("Failed to evaluate scope expression") from error
    if not isinstance(scope, str):
        raise InvalidRequestError("Failed to evaluate scope expression")
    return scope
