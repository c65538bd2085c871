"""Rules whose windows and waits are shortened, so that an incident of seconds is to them one of minutes or hours."""

import re

SECONDS = {
    "1m": 2, "2m": 2, "5m": 10, "10m": 15, "15m": 20, "30m": 25, "1h": 35, "2h": 40, "8h": 45, "6h": 60, "1d": 70,
    "3d": 90,
}  # fmt: skip
"""How long each duration of the rules becomes. Lock renewals (5 s) and Prometheus's scrapes (1 s) keep their length."""

WAIT_SECONDS = 2
"""How long a condition must hold, for every alert."""

DISCOVERY_SECONDS = 8
"""The same for MageflowWorkerUnreachable: Prometheus takes up to 5 s to drop a target that discovery has removed."""

_DURATION = r"\d+[mhd]"


def shortened(rules: str) -> str:
    """The text of a rule file with short windows, short waits, and an evaluation each second.

    Raises:
        KeyError: A rule has a duration that is not in `SECONDS`.
    """
    text = re.sub(r"interval: \w+", "interval: 1s", rules)
    text = re.sub(rf"(  for: ){_DURATION}", rf"\g<1>{WAIT_SECONDS}s", text)
    text = re.sub(r"(MageflowWorkerUnreachable\n.*\n +for: )\w+", rf"\g<1>{DISCOVERY_SECONDS}s", text)
    text = re.sub(rf"\[({_DURATION})(?::({_DURATION}))?\]", _range, text)
    text = re.sub(rf"offset ({_DURATION})", lambda found: f"offset {SECONDS[found[1]]}s", text)
    return re.sub(r"< (\d+) \+ 60", lambda found: f"< {SECONDS[_in_words(int(found[1]))]} + 2", text)


def _range(found: re.Match[str]) -> str:
    step = f":{SECONDS[found[2]]}s" if found[2] else ""
    return f"[{SECONDS[found[1]]}s{step}]"


def _in_words(seconds: int) -> str:
    return f"{seconds // 3600}h" if seconds % 3600 == 0 else f"{seconds // 60}m"
