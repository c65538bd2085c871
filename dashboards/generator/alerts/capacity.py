"""Alerts about slots."""

from dashboards.generator.rules import Alert, Thresholds

_OVERVIEW = "mageflow-overview"
_STAGGER = "mageflow-stagger"


def capacity_alerts(at: Thresholds) -> tuple[Alert, ...]:
    """Slots that are short."""
    return (
        Alert(
            "MageflowQueueWaitHigh", "warning", "10m",
            f"task:mageflow_task_queue_wait_seconds:p95_5m > {at.queue_wait_seconds:g}",
            "Runs of {{ $labels.task }} wait {{ $value | humanizeDuration }} for a slot",
            "95 % of the runs of {{ $labels.task }} (job {{ $labels.job }}) start within "
            "{{ $value | humanizeDuration }} of being due, no sooner.",
            _OVERVIEW,
            "More runs arrive than the slots can take, or the slots are not doing the work.",
            ("Too few workers, or workers that are gone.", "Slots held by stagger sleeps or waits for locks.",
             "A rate limit or concurrency limit in Hatchet holds runs back."),
            ("*Slot use* on the overview: near 100 % is a lack of slots, otherwise Hatchet holds the runs back.",
             "*Where slots go*: anything but body is capacity that can be won back.",
             "Add workers, or raise `slots` where the tasks mostly wait."),
        ),
        Alert(
            "MageflowSlotsSaturated", "warning", "10m",
            f"pool:mageflow_worker_slots:used_ratio > {at.slots_used_ratio:g}",
            "{{ $value | humanizePercentage }} of the {{ $labels.pool }} slots are taken",
            "The {{ $labels.pool }} slots of job {{ $labels.job }} have been "
            "{{ $value | humanizePercentage }} full for ten minutes: further runs wait in Hatchet.",
            _OVERVIEW,
            "The workers are full. Nothing is lost, but everything waits.",
            ("Load has grown.", "Tasks got slower, or hang.", "Slots are spent on sleeping or waiting."),
            ("*Where slots go* and *Heaviest tasks* tell which task and which stage holds the slots.",
             "Add workers; for durable tasks raise `durable_slots`."),
        ),
        Alert(
            "MageflowStaggerHogsSlots", "warning", "15m",
            'sum by (job) (mageflow_tasks_in_flight{phase="stagger"}) / '
            f'sum by (job) (mageflow_worker_slots{{pool="default"}}) > {at.stagger_share:g}',
            "{{ $value | humanizePercentage }} of the slots of {{ $labels.job }} are asleep",
            "Staggered attempts hold {{ $value | humanizePercentage }} of the ordinary slots of job "
            "{{ $labels.job }} while they sleep.",
            _STAGGER,
            "Stagger windows are too wide for the number of slots: a sleeping attempt keeps its slot.",
            ("`wait_delta` of a busy task is longer than its own run time by far.", "Too few slots."),
            ("*Delay against window* on the stagger board tells which task has which window.",
             "Narrow the window, or add slots: sleeping costs no CPU, so slots may well exceed cores."),
        ),
    )  # fmt: skip
