"""Ids of what is created, and keys of the runs users make: random outside a task, found again inside one.

Inside a task an id is derived from the run's own id, the **content** of what is created, and how many of exactly this
content the attempt has created before. A retried, replayed or reassigned attempt that creates the same things, in
whatever order, finds what the first attempt created. One that creates something else gets a new object, and what the
first attempt created stays as it is: it is never handed out as something it is not.
"""

import hashlib
import uuid

from mageflow.interceptors import current_attempt

__all__ = ["new_identity"]


def new_identity(*content: str) -> str:
    """32 hexadecimal digits: derived from the running attempt and the content, or random outside a task."""
    attempt = current_attempt.get()
    if attempt is None:
        return uuid.uuid4().hex
    digest = hashlib.sha256("\0".join(content).encode()).hexdigest()
    count = attempt.creations[digest] = attempt.creations.get(digest, 0) + 1
    seed = f"{attempt.workflow_run_id}\0{attempt.task_run_id}\0{digest}\0{count}"
    return hashlib.sha256(seed.encode()).hexdigest()[:32]
