"""The signature of a chain."""

from typing import Literal

from mageflow.signatures.signature import Signature

__all__ = ["ChainSignature"]


class ChainSignature(Signature):
    """Tasks that run one after another, each with the result of the one before. Create one with ``client.chain``.

    Attributes:
        name: Its name in telemetry.
        steps: Keys of the steps, in order.
        step: Number of steps that have succeeded, from 0 to ``len(steps)``; the index of the current step while it is
            active. Counted when the step succeeds, also while the chain is suspended.
    """

    kind: Literal["chain"] = "chain"
    name: str
    steps: tuple[str, ...] = ()
    step: int = 0
