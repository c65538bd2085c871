"""REST: the part of Hatchet's HTTP API that the SDK's feature clients call."""

from mageflow.engine.rest.app import bind_rest, start_rest

__all__ = ["bind_rest", "start_rest"]
