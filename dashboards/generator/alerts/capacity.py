"""Alerts about slots."""

from dashboards.generator.rules import Alert, Thresholds

_STAGGER = "mageflow-stagger"
_OVERVIEW = "mageflow-overview"


def capacity_alerts(limits: Thresholds) -> tuple[Alert, ...]:
    """Alerts about too few slots, or slots that do no work."""
    return (
        Alert(
            name="MageflowQueueWaitHigh",
            severity="warning",
            wait="10m",
            expr=f"task:mageflow_task_queue_wait_seconds:p95_5m > {limits.queue_wait_seconds:g}",
            summary="Runs of {{ $labels.task }} wait {{ $value | humanizeDuration }} for a slot",
            description=(
                "The 95th percentile of the queue wait of {{ $labels.task }} (job {{ $labels.job }}) is "
                "{{ $value | humanizeDuration }}."
            ),
            board=_OVERVIEW,
            meaning="More runs arrive than the slots can take, or slots are occupied without doing work.",
            causes=(
                "Too few workers, or workers that are gone.",
                "Stagger sleeps or lock waits occupy the slots.",
                "A rate limit or concurrency limit in Hatchet holds runs back.",
            ),
            steps=(
                (
                    "*Slot use* on the overview: near 100 % there are too few slots; otherwise Hatchet holds the runs "
                    "back."
                ),
                "*Where slots go*: every stage except body is capacity you can win back.",
                "Add workers, or raise `slots` if the tasks mostly wait for input and output.",
            ),
        ),
        Alert(
            name="MageflowRunsWaitLong",
            severity="warning",
            wait="5m",
            expr=f"max by (job, task) (mageflow_task_oldest_waiting_seconds) > {limits.waiting_seconds:g}",
            summary="A run of {{ $labels.task }} has waited {{ $value | humanizeDuration }} in Hatchet",
            description=(
                "The oldest run of {{ $labels.task }} that no worker has started waits since "
                "{{ $value | humanizeDuration }}. It is not in the queue wait, which is known when a run starts."
            ),
            board=_OVERVIEW,
            meaning="Runs wait, and some of them do not start at all.",
            causes=(
                "No worker that is running has the task.",
                "All slots are in use, or a concurrency or rate limit of Hatchet holds the runs back.",
                "Hatchet counts by task name over the namespaces of a tenant: another namespace has no worker.",
            ),
            steps=(
                "*Waiting in Hatchet* on the overview: one task or all tasks?",
                "One task: start a worker that registers it, or look at its concurrency and rate limits.",
                "All tasks: *Slot use*. Add workers; `docs/telemetry.md` has an example that scales by this metric.",
            ),
        ),
        Alert(
            name="MageflowSlotsSaturated",
            severity="warning",
            wait="5m",
            # The mean, so that a moment with a free slot, or without a scrape, does not begin the wait anew.
            expr=f"avg_over_time(pool:mageflow_worker_slots:used_ratio[10m]) > {limits.slots_used_ratio:g}",
            summary="{{ $value | humanizePercentage }} of the {{ $labels.pool }} slots are in use",
            description=(
                "{{ $value | humanizePercentage }} of the {{ $labels.pool }} slots of job {{ $labels.job }} are in "
                "use, and the share has been high for ten minutes. Further runs wait in Hatchet."
            ),
            board=_OVERVIEW,
            meaning="The workers are full. No run is lost, but every run waits.",
            causes=(
                "The load has grown.",
                "Tasks became slower, or hang.",
                "Slots are occupied by attempts that sleep or wait.",
            ),
            steps=(
                "*Where slots go* shows the stage, *Heaviest tasks* the task that occupies the slots.",
                "Add workers. For durable tasks raise `durable_slots`.",
            ),
        ),
        Alert(
            name="MageflowStaggerHogsSlots",
            severity="warning",
            wait="15m",
            expr=(
                'sum by (job) (mageflow_tasks_in_flight{phase="stagger"}) / '
                f'sum by (job) (mageflow_worker_slots{{pool="default"}}) > {limits.stagger_share:g}'
            ),
            summary="{{ $value | humanizePercentage }} of the slots of {{ $labels.job }} are asleep",
            description=(
                "Staggered attempts that sleep occupy {{ $value | humanizePercentage }} of the default slots of job "
                "{{ $labels.job }}."
            ),
            board=_STAGGER,
            meaning=(
                "Stagger windows are too wide for the number of slots: an attempt occupies its slot while it sleeps."
            ),
            causes=("`wait_delta` of a busy task is much longer than its run time.", "Too few slots."),
            steps=(
                "*Delay p50 / p95 and window* on the stagger board shows the window of each task.",
                "Shorten the window, or add slots. Sleeping uses no CPU, so there may be more slots than CPU cores.",
            ),
        ),
    )
