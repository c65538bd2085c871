"""What the workers of this host say of their runs: ``/debug/runs`` of each, without their metrics."""

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from mageflow.config import Settings

__all__ = ["read_worker_runs"]


async def read_worker_runs(settings: "Settings") -> "Sequence[dict[str, Any]]":
    """The body of ``/debug/runs`` of every worker of this host. One that does not answer within 2 s is left out.

    Args:
        settings: Where workers serve: ``MAGEFLOW_METRICS_SD_DIR``, or every port of ``MAGEFLOW_METRICS_PORT_SPAN``.
    """
    from mageflow.cli.top.sources import endpoint_candidates, get_text

    urls = [each.removesuffix("/metrics") + "/debug/runs" for each in endpoint_candidates(settings)]
    bodies = await asyncio.gather(*(asyncio.to_thread(get_text, url) for url in urls))
    return [found for body in bodies if body is not None and (found := _document(body)) is not None]


def _document(body: str) -> "dict[str, Any] | None":
    try:
        document = json.loads(body)
    except ValueError:
        return None
    return cast("dict[str, Any]", document) if isinstance(document, dict) and "running" in document else None
