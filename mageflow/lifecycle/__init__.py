"""The verbs of a signature's life: suspend, resume, interrupt, remove. Each is one script, and twice is once."""

from mageflow.lifecycle.verbs import Lifecycle

__all__ = ["Lifecycle"]
