"""``mageflow start``: starts a stored signature, chain or swarm."""

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import click

from mageflow.cli.acting import act_on_each
from mageflow.cli.failures import complain
from mageflow.cli.moments import Duration, Moment
from mageflow.cli.redis_options import redis_options
from mageflow.errors import DispatchError, FlowError, MageflowError

if TYPE_CHECKING:
    from mageflow.client import Mageflow

__all__ = ["RunFailedError", "start"]

_EPILOG = """\b
Examples:
  mageflow start ID                             a whole id, as in a log
  mageflow start ID --input '{"order": 17}'     with a message
  mageflow start ID --wait --json | jq '.done[].result'
  jq -c . order.json | mageflow start ID --input -
  mageflow start ID --in 2h30m                  later
  mageflow start ID --at 2030-01-31T06:00       at a time of this machine

\b
A signature runs again each time. A chain or swarm runs once: a second start
changes nothing of it. mageflow list shows what is stored, and mageflow run
starts a program. A time of a chain or swarm is replaced by the next --at or
--in. mageflow cancel takes a start at a time back, of a signature too.
Exit status: 0 started or scheduled, or ended with success under --wait, 1 a
key was not found, it failed, or Redis or Hatchet does not answer, 2 wrong
arguments.
"""


class RunFailedError(FlowError):
    """The run of a signature failed while ``--wait`` waited for it."""

    def __init__(self, key: str, reason: str) -> None:
        self.key = key
        self.reason = reason
        super().__init__(f"the run of {key!r} failed: {reason}")


@click.command(epilog=_EPILOG)
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@redis_options
@click.option("--input", "text", metavar="JSON", help="The message, as a JSON object; - reads it from stdin.")
@click.option("--at", "moment", metavar="TIME", type=Moment(), help="When it starts, in the form of ISO 8601.")
@click.option("--in", "delay", metavar="DURATION", type=Duration(), help="Start it later: 90s, 10m, 2h30m, 1d12h.")
@click.option("--wait", is_flag=True, help="Wait for the end, and print the result.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def start(
    keys: tuple[str, ...],
    redis_url: str | None,
    namespace: str | None,
    text: str | None,
    moment: datetime | None,
    delay: timedelta | None,
    *,
    wait: bool,
    as_json: bool,
) -> None:
    """Start a stored signature, chain or swarm, now or at a time.

    Needs Redis and Hatchet, and no code of your tasks. A field of the message wins over a value that is bound to the
    task.
    """
    if moment and delay:
        raise click.UsageError("--at and --in exclude each other")
    if wait and (moment or delay):
        raise click.UsageError("--wait needs a start now: it excludes --at and --in")
    message = _message(text)
    at = datetime.now(UTC) + delay if delay else moment

    async def apply(client: "Mageflow", key: str) -> dict[str, Any]:
        return await _start(client, key, message, at, wait=wait)

    act_on_each(keys, redis_url, namespace, apply, as_json=as_json)


def _message(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        message = json.loads(sys.stdin.read() if text == "-" else text)
        # Python reads NaN, 1e999 and half of a surrogate pair too, which no other reader takes.
        json.dumps(message, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"it is no JSON: {error}", param_hint="--input") from error
    if not isinstance(message, dict):
        raise click.BadParameter("a message is a JSON object, such as '{\"order\": 17}'", param_hint="--input")
    return cast("dict[str, Any]", message)


async def _start(
    client: "Mageflow", key: str, message: Mapping[str, Any] | None, at: datetime | None, *, wait: bool
) -> dict[str, Any]:
    import grpc

    signature = await client.load_signature(key)
    try:
        if wait:
            if signature.status == "suspended":
                # It may wait for days. The line is no error: the command goes on when another terminal resumes it.
                complain(f"{key!r} is suspended: this waits until it is resumed (mageflow resume)")
            result = await signature.aio_run(message)
            shown = result if isinstance(result, dict | list | str | int | float | bool | None) else str(result)
            return {"status": "done", "result": shown, "said": json.dumps(shown, ensure_ascii=False)}
        if at is not None:
            return _scheduled(at, await signature.aio_schedule(at, message))
        started = await signature.aio_run_no_wait(message)
    except MageflowError:
        raise
    except grpc.RpcError as error:
        details = getattr(error, "details", lambda: "")() or type(error).__name__
        raise DispatchError(key, str(details)) from error
    except Exception as error:
        if not wait:
            raise DispatchError(key, _reason(error)) from error
        raise RunFailedError(key, _reason(error)) from error
    if signature.kind == "task":
        run_id = str(started.workflow_run_id)
        return {"status": "active", "run": run_id, "said": f"started run {run_id}"}
    status = str((await client.load_signature(key)).status)
    is_new = signature.status in ("pending", "suspended")
    return {"status": status, "is_new": is_new, "said": f"{'started' if is_new else 'was started before'}, {status}"}


def _scheduled(at: datetime, answer: object) -> dict[str, Any]:
    """What was scheduled. Hatchet keeps the time of a task signature, under an id of its own."""
    at = at.astimezone().replace(microsecond=0)
    ids = [str(each.id) for each in getattr(answer, "scheduled_workflows", ())]
    at_hatchet = f" in Hatchet as {', '.join(ids)}" if ids else ""
    return {
        "status": "scheduled",
        "at": at.isoformat(),
        **({"scheduled": ids} if ids else {}),
        "said": f"starts at {at.isoformat()}{at_hatchet}",
    }


def _reason(error: BaseException) -> str:
    """The class and the text of the exception of the task, without its traceback.

    The SDK's error of a run has those of its tasks in ``exceptions``, each with ``exc_type`` and ``exc``.
    """
    if failed := getattr(error, "exceptions", ()):
        return _reason(failed[0])
    kind, text = getattr(error, "exc_type", ""), _whole_text(error)
    first_line = (str(error).splitlines() or [""])[0]
    return f"{kind}: {text}" if kind else first_line or type(error).__name__


def _whole_text(error: BaseException) -> str:
    """The text of an exception that the SDK has read, its lines joined.

    The SDK ends each line of a text but the last with a backslash. When it reads the text, it takes the first line, and
    leaves the others at the begin of ``trace``.
    """
    first, rest = getattr(error, "exc", ""), getattr(error, "trace", "").splitlines()
    lines = [first]
    while lines[-1].endswith("\\") and rest:
        lines.append(rest.pop(0))
    return " ".join(part for line in lines if (part := line.removesuffix("\\").strip()))
