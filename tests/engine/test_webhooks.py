"""Webhooks: management, who may send, what becomes of a body, and the event with its runs.

The expected answers are those of Hatchet, which was sent the same requests.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

import pytest

from tests.engine.conftest import Single
from tests.engine.raw_client import RawClient, task, unique

SECRET = "secret"  # noqa: S105
BASIC = {"authType": "BASIC", "auth": {"username": "user", "password": SECRET}}
API_KEY = {"authType": "API_KEY", "auth": {"headerName": "X-Key", "apiKey": "key-of-the-test"}}


def signed_with(header: str, secret: str = SECRET, algorithm: str = "SHA256", encoding: str = "HEX") -> dict[str, Any]:
    """Return the authentication part of a request that makes a webhook with signatures."""
    auth = {
        "algorithm": algorithm,
        "encoding": encoding,
        "signatureHeaderName": header,
        "signingSecret": secret,
    }
    return {"authType": "HMAC", "auth": auth}


def basic(user: str, password: str) -> dict[str, str]:
    """Return the header of basic authentication."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


class Hook:
    """One webhook of the engine."""

    def __init__(self, client: RawClient, name: str) -> None:
        self.client = client
        self.name = name
        self.path = f"{client.stable}/webhooks/{name}"

    async def send(
        self, body: object, headers: Mapping[str, str] | None = None, *, kind: str = "application/json"
    ) -> tuple[int, Any]:
        """Send a request as another service does, without the engine's token."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        url = self.client.handshake.api_url + self.path
        async with self.client.session.post(url, data=data, headers={"Content-Type": kind, **(headers or {})}) as reply:
            text = await reply.text()
            return reply.status, json.loads(text) if text else None


async def hook(client: RawClient, auth: Mapping[str, Any] = BASIC, **options: Any) -> Hook:
    """Make a webhook whose event key is the field ``key`` of the body."""
    name = unique("hook")
    body = {"name": name, "sourceName": "GENERIC", "eventKeyExpression": "input.key", **auth, **options}
    await client.post(f"{client.stable}/webhooks", body)
    return Hook(client, name)


def refusal(reply: tuple[int, Any]) -> tuple[int, str]:
    """Return status and text of a refusal."""
    return reply[0], reply[1]["errors"][0]["description"]


USER = basic("user", SECRET)


async def test_a_request_starts_the_runs_that_its_event_triggers(single: Single) -> None:
    """The body is the input; the event names its webhook; the sender is sent the event."""
    key = unique("key")
    await single.client.put(single.name, task("work", single.name), event_triggers=[key])
    made = await hook(single.client)
    status, reply = await made.send({"key": key, "n": 1, "tenant": "left out"}, USER)
    assert (status, reply["message"], reply["event"]["key"]) == (200, "ok", key)
    action = await single.worker.next()
    assert json.loads(action.action_payload)["input"] == {"key": key, "n": 1}
    metadata = json.loads(action.additional_metadata)
    assert metadata["hatchet__event_id"] == reply["event"]["metadata"]["id"]
    row = (await single.client.get(f"{single.client.stable}/events", keys=key))["rows"][0]
    assert (row["triggeringWebhookName"], row["payload"]) == (made.name, {"key": key, "n": 1})


async def test_a_scope_and_a_static_payload_are_part_of_the_event(client: RawClient) -> None:
    """Headers have names in lower case in expressions. The static payload wins over the body."""
    key = unique("key")
    made = await hook(client, scopeExpression="headers['x-team'] + ':' + input.n", staticPayload={"n": "7", "more": {}})
    assert (await made.send({"key": key, "n": "1"}, {**USER, "X-Team": "red"}))[0] == 200
    row = (await client.get(f"{client.stable}/events", keys=key))["rows"][0]
    assert (row["scope"], row["payload"]) == ("red:7", {"key": key, "n": "7", "more": {}})


async def test_basic_authentication_and_api_keys_are_checked(client: RawClient) -> None:
    """A wrong credential is 403 and no event."""
    made, key = await hook(client), unique("key")
    for wrong in (basic("user", "wrong"), basic("wrong", SECRET), basic("", "")):
        assert refusal(await made.send({"key": key}, wrong)) == (403, "invalid basic auth credentials")
    for missing in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Basic %%%"}):
        assert refusal(await made.send({"key": key}, missing)) == (403, "missing or invalid authorization header")
    keyed = await hook(client, API_KEY)
    assert refusal(await keyed.send({"key": key})) == (403, "missing or invalid api key header: X-Key")
    assert refusal(await keyed.send({"key": key}, {"X-Key": "another"})) == (403, "invalid api key: X-Key")
    assert (await client.get(f"{client.stable}/events", keys=key))["rows"] == []
    assert (await keyed.send({"key": key}, {"x-key": "key-of-the-test"}))[0] == 200


@pytest.mark.parametrize("algorithm", ["SHA1", "SHA256", "SHA512", "MD5"])
@pytest.mark.parametrize("encoding", ["HEX", "BASE64", "BASE64URL"])
async def test_a_signature_is_checked_in_every_algorithm_and_encoding(
    client: RawClient, algorithm: str, encoding: str
) -> None:
    """The body is signed as it came. GitHub writes the name of the hash before the signature."""
    made = await hook(client, signed_with("X-Sig", SECRET, algorithm, encoding), sourceName="GITHUB")
    body = b'{"key":  "signed"}'
    digest = hmac.new(SECRET.encode(), body, algorithm.lower()).digest()
    text = {
        "HEX": digest.hex(),
        "BASE64": base64.b64encode(digest).decode(),
        "BASE64URL": base64.urlsafe_b64encode(digest).decode(),
    }[encoding]
    assert (await made.send(body, {"X-Sig": text}))[0] == 200
    assert (await made.send(body, {"X-Sig": f"{algorithm.lower()}={text}"}))[0] == 200
    assert refusal(await made.send(body + b" ", {"X-Sig": text})) == (403, "invalid HMAC signature")
    assert refusal(await made.send(body)) == (403, "missing or invalid signature header: X-Sig")


async def test_slack_signs_a_time_and_sends_challenges_commands_and_interactions(client: RawClient) -> None:
    """A challenge is answered before anything is checked. Commands are forms, interactions a form with JSON."""
    made = await hook(client, signed_with("X-Slack-Signature"), sourceName="SLACK")
    assert await made.send({"challenge": "abc"}) == (200, {"challenge": "abc"})

    def headers(body: bytes, sent: float) -> dict[str, str]:
        signed = f"v0:{int(sent)}:".encode() + body
        signature = "v0=" + hmac.digest(SECRET.encode(), signed, "sha256").hex()
        return {"X-Slack-Request-Timestamp": str(int(sent)), "X-Slack-Signature": signature}

    form = "application/x-www-form-urlencoded"
    now = time.time()
    for body, expected in (
        (b"key=command&text=a+b", {"key": "command", "text": "a b"}),
        (b"payload=%7B%22key%22%3A%22pressed%22%7D", {"key": "pressed"}),
    ):
        status, reply = await made.send(body, headers(body, now), kind=form)
        assert (status, reply["event"]["payload"]) == (200, expected)
    old = headers(b'{"key":"x"}', now - 301)
    assert refusal(await made.send(b'{"key":"x"}', old)) == (403, "timestamp in header is out of range")
    assert refusal(await made.send(b'{"key":"y"}', headers(b'{"key":"x"}', now))) == (403, "invalid HMAC signature")
    missing = (403, "missing or invalid timestamp header: X-Slack-Request-Timestamp")
    assert refusal(await made.send({"key": "x"})) == missing


async def test_stripe_signs_a_time_in_the_same_header(client: RawClient) -> None:
    """The header is ``t=<seconds>,v1=<signature>``; ten minutes later it is refused."""
    made = await hook(client, signed_with("Stripe-Signature"), sourceName="STRIPE")
    body = b'{"key":"paid"}'

    def header(sent: float) -> dict[str, str]:
        signature = hmac.digest(SECRET.encode(), f"{int(sent)}.".encode() + body, "sha256").hex()
        return {"Stripe-Signature": f"t={int(sent)},v1={signature}"}

    assert (await made.send(body, header(time.time())))[0] == 200
    late = (400, "timestamp in signature header is out of range")
    assert refusal(await made.send(body, header(time.time() - 601))) == late
    malformed = (400, "invalid signature header format: Stripe-Signature")
    assert refusal(await made.send(body, {"Stripe-Signature": "nothing"})) == malformed
    forged = {"Stripe-Signature": f"t={int(time.time())},v1=00"}
    assert refusal(await made.send(body, forged)) == (403, "invalid HMAC signature")


async def test_svix_signs_an_id_and_a_time_and_may_send_several_signatures(client: RawClient) -> None:
    """Headers begin with ``svix-`` or ``webhook-``. Five minutes to either side the time is refused."""
    secret = base64.b64encode(b"key of svix").decode()
    made = await hook(client, signed_with("unused", f"whsec_{secret}"), sourceName="SVIX")
    body = b'{"key":"sent"}'

    def headers(sent: float, prefix: str = "svix") -> dict[str, str]:
        digest = hmac.digest(b"key of svix", f"id-1.{int(sent)}.".encode() + body, hashlib.sha256)
        signatures = "v1,other v2,x v1," + base64.b64encode(digest).decode()
        return {
            f"{prefix}-id": "id-1",
            f"{prefix}-timestamp": str(int(sent)),
            f"{prefix}-signature": signatures,
        }

    now = time.time()
    assert [(await made.send(body, headers(now, prefix)))[0] for prefix in ("svix", "webhook")] == [200, 200]
    for offset, text in ((-302, "message too old"), (302, "message too new")):
        assert refusal(await made.send(body, headers(now + offset))) == (400, f"invalid timestamp header: {text}")
    forged = {**headers(now), "svix-signature": "v1,forged"}
    assert refusal(await made.send(body, forged)) == (403, "invalid SVIX signature")
    assert refusal(await made.send(body)) == (400, "missing or invalid headers")


async def test_a_body_or_an_expression_that_gives_no_event_is_refused(client: RawClient) -> None:
    """The texts are Hatchet's."""
    made = await hook(client)
    for body in (b"", b"no json", b"[1]"):
        assert refusal(await made.send(body, USER)) == (400, "failed to unmarshal request body")
    assert refusal(await made.send({}, USER)) == (400, "Event key evaluated to an empty string")
    assert refusal(await made.send({"key": 5}, USER)) == (400, "Event key expression must evaluate to a string")
    await client.http("PATCH", made.path, {"scopeExpression": "input.scope"})
    assert refusal(await made.send({"key": "k"}, USER)) == (400, "Failed to evaluate scope expression")
    github = await hook(client, BASIC, sourceName="GITHUB")
    status, text = refusal(await github.send(b"key=k", USER, kind="application/x-www-form-urlencoded"))
    assert (status, text) == (400, "form-encoded requests are not supported for webhook source: GITHUB")


async def test_webhooks_can_be_listed_changed_and_deleted(client: RawClient) -> None:
    """A webhook is known by its name. Management needs the engine's token, sending does not."""
    made = await hook(client, API_KEY, scopeExpression="input.scope")
    row = await client.get(made.path)
    assert (row["authType"], row["scopeExpression"], row["returnEventAsResponsePayload"]) == (
        "API_KEY",
        "input.scope",
        True,
    )
    assert "key-of-the-test" not in json.dumps(row)
    assert (await client.get(f"{client.stable}/webhooks", webhookNames=made.name))["rows"] == [row]
    assert (await client.get(f"{client.stable}/webhooks", webhookNames=made.name, sourceNames="SLACK"))["rows"] == []
    change = {"scopeExpression": "", "returnEventAsResponsePayload": False, "staticPayload": {"a": 1}}
    changed = (await client.http("PATCH", made.path, change))[1]
    assert ("scopeExpression" in changed, changed["staticPayload"]) == (False, {"a": 1})
    assert changed["eventKeyExpression"] == "input.key"
    assert await made.send({"key": "k"}, {"X-Key": "key-of-the-test"}) == (204, None)
    url = client.handshake.api_url + made.path
    async with client.session.get(url) as reply:
        assert reply.status == 403
    assert (await client.http("DELETE", made.path))[0] == 200
    assert (await client.http("GET", made.path))[0] == 404
    assert (await made.send({"key": "k"}, {"X-Key": "key-of-the-test"}))[0] == 404


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"name": ""}, "a webhook needs a name"),
        ({"sourceName": "NOPE"}, "unknown source 'NOPE'"),
        ({"authType": "NONE"}, "failed to construct webhook create params: unsupported auth type: NONE"),
        ({"authType": None}, "failed to get discriminator: authType field is missing"),
        ({"auth": {"username": "user"}}, "auth needs the text fields username, password"),
        ({"sourceName": "STRIPE"}, "a STRIPE webhook needs HMAC authentication"),
        (signed_with("X", algorithm="CRC"), "unsupported HMAC algorithm 'CRC'"),
    ],
)
async def test_a_webhook_that_cannot_work_is_refused(client: RawClient, change: dict[str, Any], text: str) -> None:
    """Each refusal says what to change."""
    body = {"name": unique("bad"), "sourceName": "GENERIC", "eventKeyExpression": "'k'", **BASIC, **change}
    status, reply = await client.http("POST", f"{client.stable}/webhooks", body)
    assert status == 400
    assert text in reply["errors"][0]["description"]


async def test_a_name_can_be_taken_once(client: RawClient) -> None:
    """A second webhook of the same name is refused, and the first stays as it is."""
    made = await hook(client)
    body = {"name": made.name, "sourceName": "GENERIC", "eventKeyExpression": "'other'", **API_KEY}
    reply = await client.http("POST", f"{client.stable}/webhooks", body)
    assert refusal(reply) == (400, f"webhook '{made.name}' exists already")
    assert (await client.get(made.path))["authType"] == "BASIC"
