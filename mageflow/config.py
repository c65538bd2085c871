"""Settings: read from the environment when a client is made, never at import, and frozen afterwards.

Every field can be set by an environment variable with the prefix ``MAGEFLOW_`` (``MAGEFLOW_METRICS_PORT``), or
passed to ``Mageflow(settings=Settings(...))``. Units are in the names.
"""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from mageflow.types import SignatureKind

__all__ = ["Settings"]


class Settings(BaseSettings):
    """What can be tuned without touching a task.

    Raises:
        pydantic.ValidationError: A value has the wrong type or is out of range; the message names the variable.
    """

    model_config = SettingsConfigDict(env_prefix="MAGEFLOW_", frozen=True, extra="ignore")

    redis_url: str | None = None
    """Where state is kept when the client is given no ``redis_client``. Falls back to ``REDIS_URL``."""

    key_prefix: str = Field(default="mageflow", min_length=1, pattern=r"^[^{}\s]+$")
    """First part of every Redis key; the Hatchet namespace is the second."""

    signature_ttl_active_seconds: int = Field(default=24 * 3600, ge=1)
    """How long an unfinished signature or flow lives without progress."""

    signature_ttl_done_seconds: int = Field(default=3600, ge=1)
    """How long a finished signature or flow can still be read."""

    chain_ttl_active_seconds: int | None = Field(default=None, ge=1)
    """As ``signature_ttl_active_seconds``, for chains; the same when not set."""

    chain_ttl_done_seconds: int | None = Field(default=None, ge=1)
    """As ``signature_ttl_done_seconds``, for chains; the same when not set."""

    swarm_ttl_active_seconds: int | None = Field(default=None, ge=1)
    """As ``signature_ttl_active_seconds``, for swarms; the same when not set."""

    swarm_ttl_done_seconds: int | None = Field(default=None, ge=1)
    """As ``signature_ttl_done_seconds``, for swarms; the same when not set."""

    reconcile_grace_seconds: float = Field(default=5.0, gt=0.0)
    """How long a decision may wait to be sent before another worker sends it."""

    reconcile_check_seconds: float = Field(default=30.0, gt=0.0)
    """How long a run may be silent before Hatchet is asked whether it still exists."""

    reconcile_interval_seconds: float = Field(default=2.0, gt=0.0)
    """How often a worker looks for runs that were decided but not sent, and for runs without a result."""

    metrics: bool = True
    """Whether workers record metrics and serve ``/metrics``."""

    metrics_addr: str = "127.0.0.1"
    """Address the endpoint binds; containers set ``0.0.0.0``."""

    metrics_port: int = Field(default=18001, ge=0, le=65535)
    """First port tried; 0 lets the system choose."""

    metrics_port_span: int = Field(default=32, ge=1, le=4096)
    """How many ports are tried, upwards from the first."""

    metrics_sd_dir: Path | None = None
    """Directory for Prometheus ``file_sd`` entries, one file per worker."""

    metrics_linger_s: float = Field(default=0.0, ge=0.0)
    """How long the endpoint stays up after the last task of a stopping worker."""

    metrics_max_series: int = Field(default=10_000, ge=100)
    """Hard stop for the number of series this process may create."""

    near_timeout_ratio: float = Field(default=0.8, gt=0.0, lt=1.0)
    """Share of its timeout after which a live attempt counts as near its timeout."""

    trace_fanout_limit: int = Field(default=128, ge=0)
    """Bulk enqueues and swarms up to this size keep their items in one trace; larger ones link instead."""

    trace_link_sources: Annotated[tuple[str, ...], NoDecode] = ("schedule", "cron", "event")
    """Sources whose runs start a new trace with a link; a comma-separated list in the environment."""

    propagate_baggage: bool = False
    """Whether OpenTelemetry baggage travels with a run."""

    hatchet_log_level: Literal["debug", "info", "warning", "error", "off"] = "warning"
    """From which level on log events also go to Hatchet, to be shown with the run; each costs it a call."""

    hatchet_queue_by_source: bool = False
    """Whether runs carry their source for Hatchet's own ``hatchet_tenant_additional_metadata_queue_size``."""

    exception_detail: Literal["type", "message", "full"] = "type"
    """How much of an exception spans and logs may carry."""

    lock_resource_detail: Literal["hash", "raw"] = "hash"
    """How resource keys appear in spans and logs."""

    lock_lease_seconds: float = Field(default=15.0, ge=1.0)
    """How long a process may be silent before the locks it holds go to others; renewed three times in that."""

    lock_victim_backoff_seconds: float = Field(default=0.5, ge=0.0)
    """A deadlock's victim that is run again ends up to this much later, its locks given back, at a random moment."""

    cluster_view: Literal["leader", "off"] = "leader"
    """Whether one worker, elected through Redis, exports the gauges of the whole cluster."""

    @field_validator("trace_link_sources", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    def ttl_seconds(self, kind: SignatureKind) -> tuple[int, int]:
        """How long a record of this kind lives, active and done."""
        active = {"chain": self.chain_ttl_active_seconds, "swarm": self.swarm_ttl_active_seconds}.get(kind)
        done = {"chain": self.chain_ttl_done_seconds, "swarm": self.swarm_ttl_done_seconds}.get(kind)
        return active or self.signature_ttl_active_seconds, done or self.signature_ttl_done_seconds

    def resolved_redis_url(self) -> str | None:
        """The URL to use when no client was given: ``MAGEFLOW_REDIS_URL``, else ``REDIS_URL``, else None."""
        return self.redis_url or os.environ.get("REDIS_URL") or None
