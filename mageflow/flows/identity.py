"""Ids of new records, and keys of the runs users make: random outside a task, deterministic inside one.

Inside a task an id is derived from the id of the run, the **content** of the new record, and the number of records with
exactly this content that the attempt has created before. So a retried, replayed or reassigned attempt that creates the
same records, in any order, finds those of the first attempt. An attempt that creates something else gets a new record,
and the record of the first attempt stays unchanged.
"""

import hashlib
import uuid

from mageflow.interceptors import current_attempt

__all__ = ["new_identity"]


def new_identity(*content: str) -> str:
    """An id of 32 hexadecimal digits: derived from the running attempt and the content, or random outside a task."""
    attempt = current_attempt.get()
    if attempt is None:
        return uuid.uuid4().hex
    digest = hashlib.sha256("\0".join(content).encode()).hexdigest()
    count = attempt.creations[digest] = attempt.creations.get(digest, 0) + 1
    seed = f"{attempt.workflow_run_id}\0{attempt.task_run_id}\0{digest}\0{count}"
    return hashlib.sha256(seed.encode()).hexdigest()[:32]
