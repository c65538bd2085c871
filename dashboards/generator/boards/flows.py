"""Board 5: chains, swarms, callbacks and the signatures they are made of, end to end."""

from dashboards.generator.queries import occurring
from dashboards.generator.spec import BoardSpec, PanelSpec, Query, Section, heat, lines, stat
from mageflow.telemetry.names import traces

_FINISHED_FLOWS = (
    f"{{ span.{traces.FLOW_OUTCOME} != nil }} | "
    f"select(name, span.{traces.FLOW_KIND}, span.{traces.FLOW_OUTCOME}, span.{traces.FLOW_STEP_COUNT})"
)
"""TraceQL: only the span written at the close of a flow, back-dated to its start, carries the flow's outcome."""

_FLOW_COLUMNS = (
    ("Start time", "started"),
    ("Name", "flow"),
    (traces.FLOW_KIND, "kind"),
    (traces.FLOW_OUTCOME, "outcome"),
    (traces.FLOW_STEP_COUNT, "steps"),
    ("Duration", "duration"),
    ("Span ID", "span"),
)

BOARD = BoardSpec(
    uid="mageflow-flows",
    title="mageflow / Chains, swarms and callbacks",
    description="Flows from start to close, their handovers and callbacks, and the signatures stored for them.",
    variables=("flow_name",),
    needs_tempo=True,
    sections=(
        Section(
            "Right now",
            (
                stat(
                    "Active", "short", "sum by (flow) (max by (job, flow) (mageflow_flows_active{S}))",
                    "Chains and swarms that are not closed yet, in the whole cluster.",
                    legend="{{flow}}", decimals=0, width=6, empty="no flows",
                ),
                stat(
                    "Success", "percentunit",
                    'sum(rate(mageflow_flows_finished_total{F,outcome="succeeded"}[R])) / '
                    "sum(rate(mageflow_flows_finished_total{F}[R]))",
                    "Share of closed flows that succeeded.",
                    steps=((0.95, "orange"), (0.99, "green")), low_is_bad=True, empty="idle", width=6,
                ),
                stat(
                    "Oldest active", "s", "max by (flow) (mageflow_flow_oldest_active_seconds{S})",
                    "Age of the oldest flow that is not closed. Ever growing: a flow is stuck.",
                    legend="{{flow}}", steps=((3600, "orange"), (21600, "red")), width=6, empty="no flows",
                ),
                stat(
                    "Failed callbacks in range", "short",
                    'sum(increase(mageflow_callbacks_total{S,result="failed"}[$__range]))',
                    "Callbacks that could not be enqueued, or whose own task failed for good, in the selected range.",
                    steps=((0.5, "red"),), instant=True, decimals=0, width=6, empty="none",
                ),
            ),
        ),
        Section(
            "Flows",
            (
                lines(
                    "Started against finished", "ops",
                    [
                        Query("sum by (flow) (rate(mageflow_flows_started_total{F}[R]))", "{{flow}} started",
                              dashed=True),
                        Query(occurring("mageflow_flows_finished_total{F}", "flow", "outcome"), "{{flow}} {{outcome}}"),
                    ],
                    "Flows started and closed per second. Started above finished for long means flows pile up.",
                ),
                lines(
                    "Flow duration p50 / p95", "s",
                    [
                        Query("histogram_quantile(0.5, sum by (le, flow_name) "
                              "(rate(mageflow_flow_duration_seconds_bucket{F}[R])))", "{{flow_name}} p50"),
                        Query("histogram_quantile(0.95, sum by (le, flow_name) "
                              "(rate(mageflow_flow_duration_seconds_bucket{F}[R])))", "{{flow_name}} p95"),
                    ],
                    "From start to close by the clock of Redis, so that host clocks do not matter. Exemplars open the "
                    "trace of the whole flow.",
                    drill="flow_name",
                ),
                heat("Flow duration", "s", "sum by (le) (increase(mageflow_flow_duration_seconds_bucket{F}[R]))",
                     "The whole distribution over the chosen flows."),
                lines(
                    "Handover p95", "s",
                    [Query("histogram_quantile(0.95, sum by (le, flow) "
                           "(rate(mageflow_flow_handover_seconds_bucket{S}[R])))", "{{flow}}")],
                    "From the end of one step to the start of the next: Redis, Hatchet's queue and free slots "
                    "together. This is what a flow costs beside its tasks.",
                    steps=((10, "orange"),),
                ),
                lines(
                    "Steps per flow", "short",
                    [Query("sum by (flow) (rate(mageflow_flow_steps_sum{S}[R])) / "
                           "sum by (flow) (rate(mageflow_flow_steps_count{S}[R]))", "{{flow}}")],
                    "How many steps or items flows have when they start, on average.", width=6,
                ),
                lines(
                    "Swarm items", "short",
                    [Query("sum by (state) (max by (job, state) (mageflow_swarm_items{S}))", "{{state}}")],
                    "Items of swarms that are not closed yet.", width=6, stacked=True,
                ),
                lines(
                    "Callbacks", "ops",
                    [Query(occurring("mageflow_callbacks_total{S}", "kind", "result"), "{{kind}} {{result}}")],
                    "Success and error callbacks of signatures and flows. failed: it could not be enqueued, or its own "
                    "task failed for good.",
                    width=6,
                ),
                lines(
                    "Sent again", "short",
                    [Query("round(sum by (reason) (increase(mageflow_flow_resends_total{S}[R])))", "{{reason}}")],
                    "Runs of steps, items and callbacks handed to Hatchet again. lost: it does not know the run any "
                    "more. unscheduled: no worker took it within its schedule timeout, so workers are too few.",
                    width=6, bars=True, decimals=0, empty="nothing was sent again",
                ),
            ),
        ),
        Section(
            "Signatures in Redis",
            (
                lines(
                    "Signatures stored", "short",
                    [Query("sum by (kind, status) (max by (job, kind, status) (mageflow_signatures{S})) > 0",
                           "{{kind}} {{status}}")],
                    "Stored signatures by status. Ever more of a status that should pass: flows are stuck, or TTLs "
                    "are too long.",
                    stacked=True,
                ),
                lines(
                    "Signature size p95", "bytes",
                    [Query("histogram_quantile(0.95, sum by (le, kind) "
                           "(rate(mageflow_signature_size_bytes_bucket{S}[R])))", "{{kind}}")],
                    "Size of documents as written. Large ones hold data that belongs in a store of its own.",
                    steps=((262144, "orange"),),
                ),
                lines(
                    "Signature writes", "ops",
                    [Query(occurring("mageflow_signature_writes_total{S}", "kind", "operation", "result"),
                           "{{kind}} {{operation}} {{result}}")],
                    "Documents created, updated, removed and kept alive.",
                ),
                lines(
                    "Redis errors", "ops",
                    [Query("sum by (operation, error) (rate(mageflow_redis_errors_total{S}[R]))",
                           "{{operation}} {{error}}")],
                    "Round trips to Redis that failed; no line is good. Plain tasks do not need Redis; signed ones "
                    "fail and are retried.",
                    colour="red", empty="no errors",
                ),
            ),
        ),
        Section(
            "Traces (needs Tempo)",
            (
                PanelSpec(
                    "traces", "Recent and slow flows",
                    "One row per flow, written at its close and dated back to its start, the latest first. Click the "
                    "span to open the trace with every step.",
                    "short", (Query(_FINISHED_FLOWS),), 24, 8,
                    empty="no traces", columns=_FLOW_COLUMNS,
                ),
            ),
            collapsed=True,
        ),
    ),
)  # fmt: skip
