"""Webhooks over REST: management with the engine's token, and the address that other services send to."""

from __future__ import annotations

from aiohttp import web

from mageflow.engine.errors import InvalidRequestError
from mageflow.engine.model import UserEvent
from mageflow.engine.rest.request import STABLE_TENANT, body_of, many, window_of
from mageflow.engine.rest.serializers import resource, without_nulls
from mageflow.engine.values import JsonObject
from mageflow.engine.webhook_authentication import (
    ENCODINGS,
    HASHES,
    ApiKeyAuth,
    Authentication,
    BasicAuth,
    SignatureAuth,
)
from mageflow.engine.webhooks import Challenge, Webhook, Webhooks

RECEIVE = "webhooks.receive"
"""Name of the one route that needs no token: each webhook authenticates its senders itself."""

_AUTH_TYPES: dict[type[Authentication], str] = {BasicAuth: "BASIC", ApiKeyAuth: "API_KEY", SignatureAuth: "HMAC"}
# Webhooks have names, and Hatchet gives every one this id.
_NO_ID = "00000000-0000-0000-0000-000000000000"


def routes(tenant_id: str, webhooks: Webhooks) -> list[web.RouteDef]:
    """Return the routes of this module."""
    handlers = _Webhooks(tenant_id, webhooks)
    one = f"{STABLE_TENANT}/webhooks/{{name}}"
    return [
        web.get(f"{STABLE_TENANT}/webhooks", handlers.list_webhooks),
        web.post(f"{STABLE_TENANT}/webhooks", handlers.create),
        web.get(one, handlers.details),
        web.patch(one, handlers.update),
        web.delete(one, handlers.delete),
        web.post(one, handlers.receive, name=RECEIVE),
    ]


class _Webhooks:
    def __init__(self, tenant_id: str, webhooks: Webhooks) -> None:
        self._tenant_id = tenant_id
        self._webhooks = webhooks

    async def list_webhooks(self, request: web.Request) -> web.Response:
        names, sources = set(many(request, "webhookNames")), set(many(request, "sourceNames"))
        rows = [
            self._row(each)
            for each in reversed(self._webhooks.entries.values())
            if (not names or each.name in names) and (not sources or each.source in sources)
        ]
        return web.json_response({"rows": window_of(request, rows)})

    async def create(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        added = self._webhooks.add(
            str(body.get("name", "")),
            source=str(body.get("sourceName", "")),
            event_key=str(body.get("eventKeyExpression", "")),
            authentication=_authentication(body),
            scope=body.get("scopeExpression"),
            static_payload=body.get("staticPayload"),
            returns_event=body.get("returnEventAsResponsePayload") is not False,
        )
        return web.json_response(self._row(added))

    async def details(self, request: web.Request) -> web.Response:
        return web.json_response(self._row(self._webhooks.get(request.match_info["name"])))

    async def update(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        changed = self._webhooks.update(
            request.match_info["name"],
            event_key=body.get("eventKeyExpression"),
            scope=body.get("scopeExpression"),
            static_payload=body.get("staticPayload"),
            returns_event=body.get("returnEventAsResponsePayload"),
        )
        return web.json_response(self._row(changed))

    async def delete(self, request: web.Request) -> web.Response:
        return web.json_response(self._row(self._webhooks.remove(request.match_info["name"])))

    async def receive(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        received = self._webhooks.receive(name, request.headers, await request.read())
        if isinstance(received, Challenge):
            return web.json_response({"challenge": received.text})
        if not self._webhooks.get(name).returns_event:
            return web.Response(status=204)
        return web.json_response({"message": "ok", "event": self._event(received)})

    def _event(self, event: UserEvent) -> JsonObject:
        return {
            "metadata": resource(event.id, event.occurred_at),
            "key": event.key,
            "tenantId": self._tenant_id,
            "payload": event.payload,
            # Hatchet answers before it starts runs.
            "workflowRunSummary": dict.fromkeys(("cancelled", "failed", "queued", "running", "succeeded"), 0),
        }

    def _row(self, webhook: Webhook) -> JsonObject:
        return without_nulls(
            {
                "metadata": resource(_NO_ID, webhook.created_at, webhook.updated_at),
                "tenantId": self._tenant_id,
                "name": webhook.name,
                "sourceName": webhook.source,
                "eventKeyExpression": webhook.event_key,
                "scopeExpression": webhook.scope,
                "staticPayload": webhook.static_payload or None,
                "authType": _AUTH_TYPES[type(webhook.authentication)],
                "returnEventAsResponsePayload": webhook.returns_event,
            }
        )


def _authentication(body: JsonObject) -> Authentication:
    kind, given = body.get("authType"), body.get("auth")
    fields: JsonObject = given if isinstance(given, dict) else {}
    if kind == "BASIC":
        return BasicAuth(*_texts(fields, "username", "password"))
    if kind == "API_KEY":
        return ApiKeyAuth(*_texts(fields, "headerName", "apiKey"))
    if kind == "HMAC":
        checked = SignatureAuth(*_texts(fields, "algorithm", "encoding", "signatureHeaderName", "signingSecret"))
        if checked.algorithm not in HASHES or checked.encoding not in ENCODINGS:
            raise InvalidRequestError(
                f"unsupported HMAC algorithm {checked.algorithm!r} or encoding {checked.encoding!r}: choose from "
                f"{', '.join(HASHES)} and {', '.join(ENCODINGS)}"
            )
        return checked
    reason = (
        "failed to get discriminator: authType field is missing in the request body"
        if kind is None
        else f"unsupported auth type: {kind}"
    )
    raise InvalidRequestError(f"failed to construct webhook create params: {reason}")


def _texts(fields: JsonObject, *names: str) -> list[str]:
    """Return fields of ``auth``.

    Raises:
        InvalidRequestError: one is missing or not a text.
    """
    values = [fields.get(name) for name in names]
    if not all(isinstance(value, str) for value in values):
        raise InvalidRequestError(f"auth needs the text fields {', '.join(names)}")
    return [str(value) for value in values]
