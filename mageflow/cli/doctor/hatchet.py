"""Hatchet as this machine sees it: the token, the address, the version, its latency, its clock, its workers."""

import asyncio
import base64
import json
import statistics
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

from mageflow.cli.doctor.findings import Finding, failure, fine, skipped, warning
from mageflow.cli.program import address_trouble

if TYPE_CHECKING:
    from hatchet_sdk.config import ClientConfig

__all__ = ["examine_hatchet", "read_config"]

_TIMES: Final = 5
_SLOW_SECONDS: Final = 0.25
_SKEW_SECONDS: Final = 2.0
"""The header of a REST answer has whole seconds."""
_ANSWER_SECONDS: Final = 10.0
_MEND: Final = "set HATCHET_CLIENT_TOKEN to a token of this Hatchet, or run: mageflow run -- mageflow doctor"


def read_config() -> "tuple[ClientConfig | None, list[Finding]]":
    """The SDK's configuration of the environment, and what there is to say about the token."""
    from hatchet_sdk.config import ClientConfig
    from pydantic import ValidationError

    try:
        config = ClientConfig()
    except ValidationError as error:
        text = " ".join(str(error.errors()[0]["msg"]).split()).removeprefix("Value error, ").partition(".")[0]
        return None, [failure("token", f"{text}.", _MEND)]
    expires = _claims(config.token).get("exp")
    if isinstance(expires, int | float) and expires < time.time():
        day = time.strftime("%Y-%m-%d", time.gmtime(expires))
        return config, [failure("token", f"The token expired on {day}.", "make a new token in Hatchet and set it")]
    return config, [fine("token", f"The token names Hatchet at {config.host_port} and tenant {config.tenant_id}.")]


def _claims(token: str) -> dict[str, Any]:
    try:
        part = token.split(".")[1]
        return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))
    except (ValueError, IndexError, TypeError):
        return {}


def examine_hatchet(config: "ClientConfig") -> Iterator[Finding]:
    """Address, token, version, latency, clock and workers. Ends at an address that does not answer."""
    trouble = address_trouble(config.host_port)
    if trouble is not None:
        statement, _, mend = trouble.rpartition("): ")
        yield failure("engine", f"{statement}).", mend)
        return
    try:
        version, seconds = asyncio.run(_versions(config))
    except Exception as error:  # noqa: BLE001 - any failure of the driver is a finding
        reason = getattr(error, "details", lambda: "")() or str(error) or type(error).__name__
        yield failure("engine", f"Hatchet at {config.host_port} refuses a call: {reason}.", _MEND)
        return
    yield from _version(version)
    if seconds > _SLOW_SECONDS:
        yield warning(
            "latency",
            f"A call to Hatchet takes {seconds * 1000:.0f} ms, and each run and each result is one.",
            "run workers nearer to Hatchet",
        )
    else:
        yield fine("latency", f"A call to Hatchet takes {seconds * 1000:.1f} ms.")
    yield from _rest(config)


async def _versions(config: "ClientConfig") -> tuple[str | None, float]:
    """The engine's version, and the median seconds of a call."""
    from hatchet_sdk.clients.dispatcher.dispatcher import DispatcherClient

    client = DispatcherClient(config)
    version: str | None = None
    took: list[float] = []
    for _ in range(_TIMES):
        began = time.monotonic()
        version = await asyncio.wait_for(client.get_version(), _ANSWER_SECONDS)
        took.append(time.monotonic() - began)
    # The first call connects.
    return version, statistics.median(took[1:])


def _version(version: str | None) -> Iterator[Finding]:
    from hatchet_sdk.engine_version import MinEngineVersion

    if not version:
        yield failure("engine", "Hatchet does not say its version: it is too old for this SDK.", "upgrade Hatchet")
        return
    needs = [each for each in MinEngineVersion if _numbers(version) < _numbers(each.value)]
    if needs:
        oldest = max(needs, key=lambda each: _numbers(each.value))
        names = ", ".join(each.name.lower().replace("_", " ") for each in needs)
        yield warning(
            "engine", f"Hatchet {version} is too old for features of the SDK: {names}.", f"upgrade to {oldest.value}"
        )
    else:
        yield fine("engine", f"Hatchet {version} has every feature that the SDK uses.")


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.lstrip("v").partition("-")[0].split(".")
    return tuple(int(each) for each in parts if each.isdecimal())


def _rest(config: "ClientConfig") -> Iterator[Finding]:
    request = urllib.request.Request(  # noqa: S310 - the user's own Hatchet
        f"{config.server_url.rstrip('/')}/api/v1/tenants/{config.tenant_id}/worker",
        headers={"Authorization": f"Bearer {config.token}"},
    )
    began = time.time()
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as response:  # noqa: S310 - as above
            rows, date = json.load(response).get("rows") or [], response.headers.get("Date")
    except urllib.error.HTTPError as error:
        yield failure("rest", f"{config.server_url} refuses the token ({error.code}).", _MEND)
        return
    except (OSError, ValueError) as error:
        yield warning(
            "rest",
            f"The REST API at {config.server_url} does not answer ({error}): schedules, crons, replays and warnings "
            "about runs that wait do not work from here.",
            "set HATCHET_CLIENT_SERVER_URL to its address",
        )
        return
    yield from _clock(date, (began + time.time()) / 2)
    active = sorted({str(row.get("name")) for row in rows if row.get("status") == "ACTIVE"})
    if active:
        yield fine("workers", f"Connected workers: {', '.join(active[:5])}{' and more' if len(active) > 5 else ''}.")  # noqa: PLR2004 - a line
    else:
        yield warning("workers", "No worker is connected: runs wait.", "start one: mageflow worker MODULE")


def _clock(date: str | None, local: float) -> Iterator[Finding]:
    try:
        skew = local - parsedate_to_datetime(date or "").timestamp() - 0.5
    except ValueError:
        yield skipped("clock", "The answer of Hatchet has no date.")
        return
    if abs(skew) > _SKEW_SECONDS:
        side = "ahead of" if skew > 0 else "behind"
        yield warning(
            "clock",
            f"The clock of this machine is {abs(skew):.0f} s {side} Hatchet's: queue waits and schedules are wrong.",
            "synchronise both clocks (NTP)",
        )
    else:
        yield fine("clock", "The clocks of this machine and of Hatchet agree within 2 s.")
