"""Settings: read from the environment when a client is made, never at import, and frozen afterwards.

Every field can be set with an environment variable with the prefix ``MAGEFLOW_`` (``MAGEFLOW_METRICS_PORT``), or passed
to ``Mageflow(settings=Settings(...))``. Fields that end in ``_seconds`` or ``_s`` are in seconds.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from mageflow.did_you_mean import hint
from mageflow.errors import ConfigurationError
from mageflow.types import SignatureKind

__all__ = ["Settings"]

_PREFIX: Final = "MAGEFLOW_"

_log = logging.getLogger("mageflow")


class Settings(BaseSettings):
    """Everything that can be tuned without a change of a task.

    A variable that begins with ``MAGEFLOW_`` and names no setting is a warning in the log of ``mageflow``.

    Raises:
        ConfigurationError: There is no such setting.
        pydantic.ValidationError: A value has the wrong type or is out of range; the message names the variable.
    """

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="ignore")

    redis_url: str | None = None
    """Redis for a client that is given no ``redis_client``. If unset, ``REDIS_URL`` is used."""

    key_prefix: str = Field(default="mageflow", min_length=1, pattern=r"^[^{}\s]+$")
    """First part of every Redis key. The second part is the Hatchet namespace."""

    signature_ttl_active_seconds: int = Field(default=24 * 3600, ge=1)
    """TTL of an unfinished signature or flow. Progress refreshes it."""

    signature_ttl_done_seconds: int = Field(default=3600, ge=1)
    """TTL of a finished signature or flow: how long it can still be read."""

    chain_ttl_active_seconds: int | None = Field(default=None, ge=1)
    """How long an unfinished chain lives without progress; ``signature_ttl_active_seconds`` if unset."""

    chain_ttl_done_seconds: int | None = Field(default=None, ge=1)
    """How long a finished chain can still be read; ``signature_ttl_done_seconds`` if unset."""

    swarm_ttl_active_seconds: int | None = Field(default=None, ge=1)
    """How long an unfinished swarm lives without progress; ``signature_ttl_active_seconds`` if unset."""

    swarm_ttl_done_seconds: int | None = Field(default=None, ge=1)
    """How long a finished swarm can still be read; ``signature_ttl_done_seconds`` if unset."""

    reconcile_grace_seconds: float = Field(default=5.0, gt=0.0)
    """A decision that has not been sent for this long is sent by another worker."""

    reconcile_check_seconds: float = Field(default=30.0, gt=0.0)
    """A run without news for this long is looked up in Hatchet."""

    reconcile_interval_seconds: float = Field(default=2.0, gt=0.0)
    """How often a worker looks for runs that were decided but not sent, and for runs without a result."""

    redis_wait_extension_seconds: float = Field(default=600.0, ge=0.0)
    """How much more time an attempt requests from Hatchet, at most, while it waits for Redis; 0: none."""

    metrics: bool = True
    """Whether workers record metrics and serve ``/metrics``."""

    metrics_addr: str = "127.0.0.1"
    """Address that the endpoint binds. In a container set ``0.0.0.0``."""

    metrics_port: int = Field(default=18001, ge=0, le=65535)
    """First port that is tried. With 0 the system chooses a port."""

    metrics_port_span: int = Field(default=32, ge=1, le=4096)
    """How many ports are tried, from the first one upwards."""

    metrics_sd_dir: Path | None = None
    """Directory for Prometheus ``file_sd`` entries, one file per worker."""

    metrics_linger_s: float = Field(default=0.0, ge=0.0)
    """How long the endpoint of a stopping worker serves after its last task has ended."""

    metrics_max_series: int = Field(default=50_000, ge=100)
    """Limit for the number of series in this process. Near it, histograms of further tasks are merged into one."""

    near_timeout_ratio: float = Field(default=0.8, gt=0.0, lt=1.0)
    """A running attempt that has used this share of its timeout counts as near its timeout."""

    trace_fanout_limit: int = Field(default=128, ge=0)
    """Bulk enqueues and swarms up to this size are one trace. Items of larger ones start their own, with a link."""

    trace_link_sources: Annotated[tuple[str, ...], NoDecode] = ("schedule", "cron", "event")
    """Sources whose runs start their own trace, with a link. A comma-separated list in the environment."""

    propagate_baggage: bool = False
    """Whether OpenTelemetry baggage travels with a run."""

    hatchet_log_level: Literal["debug", "info", "warning", "error", "off"] = "warning"
    """Log events from this level up are also sent to Hatchet, which shows them with the run. Each one costs a call."""

    hatchet_run_lines: bool = False
    """Whether `telemetry.configure` keeps the lines that the SDK logs for every run, beside mageflow's event."""

    hatchet_queue_by_source: bool = False
    """Whether runs carry their source for Hatchet's metric ``hatchet_tenant_additional_metadata_queue_size``."""

    exception_detail: Literal["type", "message", "full"] = "type"
    """How much of an exception spans and logs show: its class, also its message, or also its traceback."""

    unserved_warning_seconds: float = Field(default=3.0, ge=0.0)
    """How long after it was sent a run is looked up, to warn if no worker serves its task. Also how long an awaited
    swarm may be open with nothing left to run. 0 never warns."""

    lock_resource_detail: Literal["hash", "raw"] = "hash"
    """How keys of locked resources appear in spans and logs: as 16 hex digits, or as they are."""

    lock_lease_seconds: float = Field(default=15.0, ge=1.0)
    """Lease of a process's locks, renewed three times in this time. When it expires, the locks go to others."""

    lock_victim_backoff_seconds: float = Field(default=0.5, ge=0.0)
    """A deadlock's victim that is retried waits a random time up to this, after the release of its locks."""

    cluster_view: Literal["leader", "off"] = "leader"
    """Whether one worker, elected through Redis, exports the cluster-wide gauges."""

    queue_interval_s: float = Field(default=15.0, ge=0.0)
    """How often the elected worker asks Hatchet what waits, with one request; 0 does not ask."""

    if not TYPE_CHECKING:  # type checkers see the fields

        def __init__(self, **fields: Any) -> None:
            for name in fields:
                if name not in Settings.model_fields and not name.startswith("_"):  # pydantic-settings has its own
                    raise ConfigurationError(f"Settings has no field {name!r}{hint(name, Settings.model_fields)}")
            super().__init__(**fields)
            for warning in _unknown_variables(os.environ):
                _log.warning(warning)

    @field_validator("trace_link_sources", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    def ttl_seconds(self, kind: SignatureKind) -> tuple[int, int]:
        """The TTLs of a record of this kind in seconds: unfinished, and finished."""
        active = {"chain": self.chain_ttl_active_seconds, "swarm": self.swarm_ttl_active_seconds}.get(kind)
        done = {"chain": self.chain_ttl_done_seconds, "swarm": self.swarm_ttl_done_seconds}.get(kind)
        return active or self.signature_ttl_active_seconds, done or self.signature_ttl_done_seconds

    def resolved_redis_url(self) -> str | None:
        """The URL for a client without ``redis_client``: ``MAGEFLOW_REDIS_URL``, else ``REDIS_URL``, else None."""
        return self.redis_url or os.environ.get("REDIS_URL") or None


def _unknown_variables(environment: Mapping[str, str]) -> Iterator[str]:
    known = [f"{_PREFIX}{name.upper()}" for name in Settings.model_fields]
    for name in environment:
        if name.upper().startswith(_PREFIX) and name.upper() not in known:
            yield f"the environment variable {name} has no effect{hint(name.upper(), known)}"
