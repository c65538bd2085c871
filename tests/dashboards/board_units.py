"""How Grafana would write a number, near enough to judge a board by."""

import math

_SCALES = {
    "s": ((86400, "d", 86400), (3600, "h", 3600), (60, "min", 60), (1, "s", 1), (1e-3, "ms", 1e-3), (1e-6, "µs", 1e-6)),
    "bytes": ((2**30, "GiB", 2**30), (2**20, "MiB", 2**20), (2**10, "KiB", 2**10), (1, "B", 1)),
    "short": ((1e6, "M", 1e6), (1e3, "K", 1e3), (0, "", 1)),
    "ops": ((1e3, "K ops/s", 1e3), (0, "ops/s", 1)),
}  # fmt: skip


def write(value: float, unit: str, decimals: int | None = None) -> str:
    """A number with its unit: ``0.25`` in ``s`` is ``250 ms``."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf"
    if unit == "percentunit":
        return f"{_digits(value * 100, decimals)}%"
    if value == 0 and unit == "s":
        return "0 s"
    for least, suffix, divisor in _SCALES.get(unit, ((0, unit, 1),)):
        if abs(value) >= least:
            return f"{_digits(value / divisor, decimals)} {suffix}".strip()
    return _digits(value, decimals)


def _digits(value: float, decimals: int | None) -> str:
    if decimals is not None:
        return f"{value:.{decimals}f}"
    if value == int(value):
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
