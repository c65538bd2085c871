"""Admits runs in tests: the one place there that knows how admission is called."""

from typing import Any

from mageflow.flows import Flows
from mageflow.signatures import RunIdentity
from mageflow.store import Admission, AdmissionRequest, Store


async def admit(
    to: Flows | Store, key: str, run: RunIdentity, *, is_replayed: bool = False, **fields: Any
) -> Admission:
    """Admit a run to a flow; with a `Store` by its script alone. ``fields`` are those of `AdmissionRequest`."""
    request = AdmissionRequest(key, run, **fields)
    if isinstance(to, Store):
        return await to.admit(request, is_replayed=is_replayed)
    return await to.admissions.admit(request)
