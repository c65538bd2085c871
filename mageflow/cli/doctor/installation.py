"""This process: installed packages, settings, ports, loggers, the SDK's instrumentor."""

import logging
import os
import socket
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from mageflow.cli.doctor.findings import Finding, failure, fine, skipped, warning
from mageflow.distribution import DISTRIBUTION, installed_version, installs, warn_other_distribution

if TYPE_CHECKING:
    from mageflow.config import Settings

__all__ = ["examine_installation", "examine_loggers", "examine_port", "examine_settings"]

_SDK: Final = "hatchet-sdk"

_OTLP_PACKAGES = {"otlp": "otlp-proto-http", "otlp-grpc": "otlp-proto-grpc"}


def examine_installation() -> Iterator[Finding]:
    """Packages and their versions."""
    python = ".".join(map(str, sys.version_info[:3]))
    sdk = version(_SDK)
    wanted = next((each for each in requires(DISTRIBUTION) or () if each.startswith(_SDK) and "extra" not in each), "")
    yield fine("versions", f"Python {python}, mageflow {installed_version() or 'not installed'}, {_SDK} {sdk}.")
    if wanted and not _satisfies(sdk, wanted):
        yield failure("versions", f"{_SDK} {sdk} is not a version that mageflow works with.", f"pip install '{wanted}'")
    from mageflow.hatchet import missing_names

    if missing := missing_names():
        yield warning(
            "versions",
            f"{_SDK} {sdk} has moved names that mageflow needs: {', '.join(missing)}. Tasks run as with plain Hatchet.",
            f"pip install '{_SDK}<{sdk}' until mageflow supports this one",
        )
    other = warn_other_distribution()
    if other is not None:
        statement, _, mend = other.partition(". ")
        yield failure("distribution", f"{statement}.", mend)
    else:
        yield fine("distribution", "No other distribution installs a package of this name.")
    if any(name.startswith("OTEL_EXPORTER_OTLP") and name.endswith("ENDPOINT") for name in os.environ):
        missing = [extra for extra in _otlp_extras() if not _has(f"opentelemetry-exporter-{_OTLP_PACKAGES[extra]}")]
        if find_spec("opentelemetry.exporter") is None or missing:
            extra = ",".join(missing or ["otlp"])
            yield failure("otlp", "An OTLP endpoint is set, and the exporter is not installed.", installs(extra))
        else:
            yield fine("otlp", "The OTLP exporter is installed, and an endpoint is set.")


def _otlp_extras() -> list[str]:
    """The extras with the exporters for the protocols of traces and metrics."""
    general = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    chosen = {os.environ.get(f"OTEL_EXPORTER_OTLP_{each}_PROTOCOL") or general for each in ("TRACES", "METRICS")}
    return sorted({"otlp-grpc" if each == "grpc" else "otlp" for each in chosen})


def _satisfies(found: str, wanted: str) -> bool:
    """Whether a version is in the range. Without the package ``packaging`` it is taken to be."""
    if find_spec("packaging") is None:
        return True
    from packaging.requirements import Requirement

    return Requirement(wanted).specifier.contains(found, prereleases=True)


def _has(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def examine_settings() -> "tuple[Settings | None, list[Finding]]":
    """The settings of the environment; None if they cannot be read."""
    from pydantic import ValidationError

    from mageflow.config import Settings

    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("mageflow")
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        settings = Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(map(str, first["loc"])).upper()
        name = name if name.startswith("MAGEFLOW_") else f"MAGEFLOW_{name}"
        return None, [failure("settings", f"{name} has a wrong value: {first['msg']}.", f"correct or unset {name}")]
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates
    found = [warning("settings", f"{each}.", "correct the name, or unset it") for each in said]
    return settings, found or [fine("settings", "Every MAGEFLOW_* variable is known and has a right value.")]


def examine_port(settings: "Settings") -> Finding:
    """Whether a worker on this machine would get a port for its metrics."""
    if not settings.metrics:
        return skipped("ports", "Metrics are off.", "unset MAGEFLOW_METRICS")
    first, span = settings.metrics_port, settings.metrics_port_span if settings.metrics_port else 1
    for port in range(first, min(first + span, 65536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.metrics_addr, port))
            except OSError:
                continue
        ports = "the port before it is" if port == first + 1 else f"the {port - first} ports before it are"
        taken = f"; {ports} taken, perhaps by workers" if port > first else ""
        return fine("ports", f"A worker would serve its metrics on {settings.metrics_addr}:{port}{taken}.")
    return warning(
        "ports",
        f"No port from {first} to {first + span - 1} of {settings.metrics_addr} is free for metrics: a worker runs "
        "without them.",
        "set MAGEFLOW_METRICS_PORT to another port, 0 for any, or MAGEFLOW_METRICS_PORT_SPAN to a larger number",
    )


def examine_loggers() -> Iterator[Finding]:
    """What the module has set up: whether warnings are seen, each once, and what the instrumentor exports."""
    from mageflow.telemetry.instrumentor import unexcluded_attributes

    mends: list[Finding] = []
    ours = logging.getLogger("mageflow")
    if not ours.isEnabledFor(logging.WARNING) or ours.disabled:
        mends.append(warning("loggers", "The logger 'mageflow' drops warnings.", "set its level to WARNING or lower"))
    printing = [
        name
        for name in ("hatchet", "mageflow")
        if logging.getLogger(name).propagate and _prints(logging.getLogger()) and _prints(logging.getLogger(name))
    ]
    mends += [
        warning(
            "loggers",
            f"The logger {name!r} has a handler of its own and so has the root logger: a record is printed twice.",
            "call mageflow.telemetry.configure(service_name=...), or remove one of the handlers",
        )
        for name in printing
    ]
    yield from mends or [fine("loggers", "Warnings of mageflow are not dropped, and no record is printed twice.")]
    names = ", ".join(unexcluded_attributes())
    if names:
        yield warning(
            "instrumentor",
            f"The SDK's instrumentor exports data of users with its spans: {names}.",
            "list them in HATCHET_CLIENT_OPENTELEMETRY_EXCLUDED_ATTRIBUTES",
        )
    else:
        yield fine("instrumentor", "The SDK's instrumentor is not active, or exports no data of users.")


def _prints(logger: logging.Logger) -> bool:
    streams = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    return any(isinstance(each, logging.StreamHandler) and each.stream in streams for each in logger.handlers)
