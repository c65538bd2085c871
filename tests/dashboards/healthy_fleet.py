"""Hours of a healthy fleet as series for promtool: deploys, restarts, a scale-in and lost scrapes, but no incident.

The numbers are drawn from a seed. Everything here is what an engineer would not want to hear about: a rare task fails
once, locks are contended in both directions, a loop stalls for three seconds, slots are full for two minutes.
"""

import random
from collections import defaultdict
from dataclasses import dataclass, field

STEP_SECONDS = 15
HOURS = 5
STEPS = HOURS * 3600 // STEP_SECONDS
"""The last hour is the busy one; the hours before give the error budgets a history."""

_FLOW = 'flow="chain", flow_name="order"'

BUSY_FROM = STEPS - 3600 // STEP_SECONDS
MINUTE = 60 // STEP_SECONDS


@dataclass
class Process:
    """One process that Prometheus scrapes, from one step until another."""

    job: str
    instance: str
    begins: int
    ends: int = STEPS
    target_until: int = STEPS
    """Discovery removes the target here; between ``ends`` and this step, scrapes fail."""
    serves: bool = True
    """Whether it is a worker, and no program that only enqueues."""
    counters: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def count(self, metric: str, labels: str, amount: float = 1) -> None:
        self.counters[f"{metric}|{labels}"] += amount


class Fleet:
    """Records the samples of every scrape."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._samples: dict[str, dict[int, str]] = defaultdict(dict)
        deploy = BUSY_FROM + 10 * MINUTE
        self.processes = [
            # A deploy replaces three pods one by one; the new ones have other addresses.
            *(Process("pay", f"10.0.0.{n}:18001", 0, deploy + n * 2 * MINUTE, deploy + n * 2 * MINUTE + 2)
              for n in range(3)),
            *(Process("pay", f"10.0.1.{n}:18001", deploy + n * 2 * MINUTE - 2) for n in range(3)),
            # A fourth goes away in a clean scale-in.
            Process("pay", "10.0.1.9:18001", 0, BUSY_FROM + 30 * MINUTE, BUSY_FROM + 30 * MINUTE + 3),
            # A worker on a fixed address is restarted and counts from zero; it is away for 45 s.
            Process("ship", "host:18001", 0, BUSY_FROM + 40 * MINUTE, BUSY_FROM + 40 * MINUTE + 3),
            Process("ship", "host:18001", BUSY_FROM + 40 * MINUTE + 3),
            # A worker on a host is killed at night and comes back at once; its leases are orphaned for a moment.
            Process("ship", "host:18002", 0, BUSY_FROM + 50 * MINUTE, BUSY_FROM + 50 * MINUTE + 1),
            Process("ship", "host:18002", BUSY_FROM + 50 * MINUTE + 1),
            # Another job of the same installation: a web application, which never leads.
            Process("web", "10.0.2.1:8000", 0, serves=False),
        ]  # fmt: skip

    def series(self) -> list[dict[str, str]]:
        """The input series of a promtool test, one sample per `STEP_SECONDS`."""
        for step in range(STEPS):
            for process in self.processes:
                if process.begins <= step < process.ends:
                    self._live(process, step)
                if process.begins <= step < process.target_until:
                    self._scrape(process, step)
        return [{"series": name, "values": _values(samples)} for name, samples in self._samples.items()]

    # -- what happens --------------------------------------------------------------------------------------------

    def _live(self, process: Process, step: int) -> None:
        draw = self._random
        if not process.serves:
            # The web application alone starts the flows; the workers close them.
            process.count("mageflow_flows_started_total", _FLOW, 2)
            return
        process.count("mageflow_flows_finished_total", f'{_FLOW}, outcome="succeeded"', draw.randint(0, 1))
        _run(process, "busy", "succeeded", draw.randint(80, 120))
        _run(process, "busy", "failed", int(draw.random() < 0.3))
        _run(process, "busy", "timed_out", int(draw.random() < 0.05))
        for outcome in ("retried", "cancelled"):
            _run(process, "busy", outcome, draw.randint(0, 5))
        first = process is self._first(process.job, step)
        if first and step % (15 * MINUTE) == 0:
            # A task that runs four times an hour fails once.
            _run(process, "rare", "failed" if step == BUSY_FROM + 15 * MINUTE else "succeeded", 1)
        if first and step == BUSY_FROM + 20 * MINUTE:
            process.count("mageflow_signature_loads_total", 'kind="chain", result="missing"')
            process.count("mageflow_timeout_extensions_total", 'task="rare", reason="stagger", result="error"')
            process.count("mageflow_telemetry_errors_total", 'signal="traces"')
            _run(process, "never before", "failed", 1)
        if step == 8 * MINUTE and process.begins == 0:
            # Long ago there were deadlocks, lost leases and failed callbacks; the counters keep them.
            process.count("mageflow_deadlocks_total",
                          'lock="account", victim_task="busy", resolution="victim_retried"', 7)  # fmt: skip
            process.count("mageflow_lock_lease_renewals_total", 'lock="account", result="lost"', 3)
            process.count("mageflow_callbacks_total", 'kind="success", result="failed"', 3)
            process.count("mageflow_telemetry_dropped_label_values_total", 'label="exception"', 3)
        process.count("mageflow_signature_loads_total", 'kind="task", result="hit"', draw.randint(20, 40))
        process.count("mageflow_timeout_extensions_total", 'task="busy", reason="stagger", result="ok"', 5)
        process.count("mageflow_deadlock_checks_total", 'result="clean"', draw.randint(1, 30))
        process.count("mageflow_lock_lease_renewals_total", 'lock="account", result="ok"', 3)
        stalled = process.job == "pay" and step == BUSY_FROM + 25 * MINUTE
        _observe(process, "mageflow_event_loop_lag_seconds", "", 15, ("0.01", "1.0", "5.0"), 2 if stalled else 0)
        burst = BUSY_FROM + 35 * MINUTE <= step < BUSY_FROM + 37 * MINUTE
        _observe(process, "mageflow_task_queue_wait_seconds", 'task="busy", ', 50, ("1.0", "60.0", "120.0"),
                 2 if burst else 0)  # fmt: skip

    def _first(self, job: str, step: int) -> Process:
        return next(each for each in self.processes if each.job == job and each.begins <= step < each.ends)

    # -- what Prometheus sees ------------------------------------------------------------------------------------

    def _scrape(self, process: Process, step: int) -> None:
        target = f'job="{process.job}", instance="{process.instance}"'
        lost = self._random.random() < 0.01 or step in (BUSY_FROM + 5 * MINUTE, BUSY_FROM + 5 * MINUTE + 1)
        if step >= process.ends or lost:
            self._samples[f"up{{{target}}}"][step] = "0"
            return
        self._samples[f"up{{{target}}}"][step] = "1"
        for name, value in (*process.counters.items(), *self._gauges(process, step)):
            metric, _, labels = name.partition("|")
            self._samples[f"{metric}{{{', '.join(filter(None, (target, labels)))}}}"][step] = f"{value:g}"

    def _gauges(self, process: Process, step: int) -> list[tuple[str, float]]:
        draw = self._random
        full = BUSY_FROM + 35 * MINUTE <= step < BUSY_FROM + 37 * MINUTE
        # The election takes 30 s after the leader went away.
        pods = [each for each in self.processes if each.job == "pay" and each.begins + 2 <= step < each.ends]
        found: list[tuple[str, float]] = [
            ("process_start_time_seconds", process.begins * STEP_SECONDS - 3),
            ("mageflow_cluster_leader", float(bool(pods) and process is pods[0])),
            ("mageflow_event_loop_lag_seconds_count", process.counters["mageflow_event_loop_lag_seconds_count|"]),
        ]
        if not process.serves:
            return found
        if pods and process is pods[0]:
            killed = BUSY_FROM + 50 * MINUTE <= step < BUSY_FROM + 50 * MINUTE + MINUTE
            found += [
                ('mageflow_locks_orphaned|lock="account"', 2.0 * killed),
                ('mageflow_flow_oldest_active_seconds|flow="chain"', draw.uniform(0, 900)),
            ]
        account, stock = (draw.randint(0, 4) for _ in range(2))
        return [
            *found,
            ('mageflow_worker_info|worker="w", version="1"', 1),
            ('mageflow_worker_slots|pool="default"', 10),
            ('mageflow_worker_slots_used|pool="default"', 10 if full else draw.randint(5, 10)),
            ('mageflow_tasks_in_flight|task="busy", phase="stagger"', draw.randint(0, 4)),
            ('mageflow_tasks_in_flight|task="busy", phase="running"', draw.randint(1, 4)),
            ('mageflow_tasks_near_timeout|task="busy"', float(draw.random() < 0.2)),
            ('mageflow_task_orphan_threads|task="busy"', float(draw.random() < 0.2)),
            # Plain contention on many keys, in both directions.
            ('mageflow_lock_wait_edges|waiter_task="busy", holder_task="rare", lock="account"', account),
            ('mageflow_lock_wait_edges|waiter_task="rare", holder_task="busy", lock="account"', stock),
            ('mageflow_lock_waiters|lock="account", task="busy"', account),
            ('mageflow_lock_oldest_wait_seconds|lock="account", task="busy"', draw.uniform(0, 30)),
            ('mageflow_lock_oldest_hold_seconds|lock="account", task="busy"', draw.uniform(0, 60)),
        ]


def _run(process: Process, task: str, outcome: str, amount: float) -> None:
    process.count("mageflow_task_runs_total", f'task="{task}", outcome="{outcome}"', amount)


def _observe(process: Process, name: str, labels: str, amount: int, bounds: tuple[str, ...], first: int) -> None:
    """Observe values that all lie in one bucket."""
    for bound in (*bounds[first:], "+Inf"):
        process.count(f"{name}_bucket", f'{labels}le="{bound}"', amount)
    for bound in bounds[:first]:
        process.count(f"{name}_bucket", f'{labels}le="{bound}"', 0)
    process.count(f"{name}_count", labels.rstrip(", "), amount)


def _values(samples: dict[int, str]) -> str:
    """In promtool's notation; a series that ends is marked as stale, as Prometheus does."""
    words: list[str] = []
    for step in range(STEPS):
        gone = step - 1 in samples and step not in samples
        words.append(samples.get(step, "stale" if gone else "_"))
    return " ".join(words)
