"""Board 5, chains, swarms and callbacks: flows from start to close, and the signatures stored for them."""

from dashboards.generator.log_queries import lines_with
from dashboards.generator.queries import counts, in_range, mean, quantile, rate_of_active, share_in_range
from dashboards.generator.spec import BoardSpec, PanelSpec, Query, Section, heat, lines, logs, stat
from mageflow.telemetry.names import traces

_FINISHED_FLOWS = (
    f"{{ span.{traces.FLOW_OUTCOME} != nil }} | "
    f"select(name, span.{traces.FLOW_KIND}, span.{traces.FLOW_OUTCOME}, span.{traces.FLOW_STEP_COUNT})"
)
"""TraceQL. Only the span of the whole flow has an outcome; it is written when the flow closes."""

_FLOW_COLUMNS = (
    ("Start time", "started"),
    ("Name", "flow"),
    (traces.FLOW_KIND, "kind"),
    (traces.FLOW_OUTCOME, "outcome"),
    (traces.FLOW_STEP_COUNT, "steps"),
    ("Duration", "duration"),
    ("Span ID", "span"),
)

_ENDED, _STARTED = in_range("mageflow_flows_finished_total{F}"), in_range("mageflow_flows_started_total{F}")

_RIGHT_NOW = Section(
    "Right now",
    (
        stat(
            "Active", "short", "sum by (flow) (max by (job, flow) (mageflow_flows_active{S}))",
            "Chains and swarms that are not closed yet, in the whole cluster.",
            legend="{{flow}}", decimals=0, width=5, empty="no flows",
        ),
        stat(
            "Success", "percentunit",
            share_in_range(
                'mageflow_flows_finished_total{F,outcome="succeeded"}',
                "mageflow_flows_finished_total{F}",
            ),
            "Share of the flows closed in the selected time range that succeeded.",
            steps=((0.95, "orange"), (0.99, "green")), low_is_bad=True, instant=True, empty="no runs", width=5,
        ),
        stat(
            "Oldest active", "s", "max by (flow) (mageflow_flow_oldest_active_seconds{S})",
            "Age of the oldest flow that is not closed. If it never stops growing, a flow is stuck.",
            legend="{{flow}}", steps=((3600, "orange"), (21600, "red")), width=5, empty="no flows",
        ),
        stat(
            "Failed callbacks in range", "short",
            "sum(" + in_range('mageflow_callbacks_total{S,result="failed"}') + ")",
            "Callbacks in the selected time range that could not be enqueued, or whose own task failed without further "
            "retries.",
            steps=((0.5, "red"),), instant=True, decimals=0, width=5, empty="none",
        ),
        stat(
            "Of unseen senders", "short",
            f"clamp_min(sum({_ENDED}) - (sum({_STARTED}) or 0 * sum({_ENDED})), 0)",
            "Flows that ended in the selected time range, less those whose start a scraped process counted. Flows that "
            "began before the range are among them. If it stays above 0, a program that starts flows is not scraped.",
            steps=((10, "orange"),), instant=True, decimals=0, width=4, empty="no flows",
        ),
    ),
)  # fmt: skip

_FLOWS = Section(
    "Flows",
    (
        lines(
            "Started and finished", "short",
            [
                Query(counts("mageflow_flows_started_total{F}", "flow"), "{{flow}} started"),
                Query(counts("mageflow_flows_finished_total{F}", "flow", "outcome"), "{{flow}} {{outcome}}"),
            ],
            "Flows started and closed per interval. If started stays above finished, flows pile up. If it stays below, "
            "a program that starts flows is not scraped: serve or mount its metrics.",
            bars=True, decimals=0, empty="no runs",
        ),
        lines(
            "Flow duration p50 / p95", "s",
            [
                Query(quantile(0.5, "mageflow_flow_duration_seconds_bucket{F}", "flow_name"), "{{flow_name}} p50"),
                Query(quantile(0.95, "mageflow_flow_duration_seconds_bucket{F}", "flow_name"), "{{flow_name}} p95"),
            ],
            "From start to close by the clock of Redis, so clock differences between hosts have no effect.",
            drill="flow_name", has_exemplars=False,
        ),
        heat("Flow duration", "s", "mageflow_flow_duration_seconds_bucket", "{F}",
             "Distribution of durations of the selected flows. Each dot opens the trace of one flow."),
        lines(
            "Handover p95", "s",
            [Query(quantile(0.95, "mageflow_flow_handover_seconds_bucket{S}", "flow"), "{{flow}}")],
            "From the end of one step to the start of the next: Redis, Hatchet's queue and waiting for a slot "
            "together. A flow costs this time in addition to its tasks.",
            steps=((10, "orange"),),
        ),
        lines(
            "Steps per flow", "short",
            [Query(mean("mageflow_flow_steps", "{S}", "flow"), "{{flow}}")],
            "Mean number of steps or items of a flow when it starts.", width=6,
        ),
        lines(
            "Swarm items", "short",
            [Query("sum by (state) (max by (job, state) (mageflow_swarm_items{S}))", "{{state}}")],
            "Items of swarms that are not closed yet.", width=6, stacked=True,
        ),
        lines(
            "Callbacks", "short",
            [Query(counts("mageflow_callbacks_total{S}", "kind", "result"), "{{kind}} {{result}}")],
            "Success and error callbacks of signatures and flows, per interval. failed: it could not be enqueued, or "
            "its own task failed without further retries.",
            width=6, bars=True, decimals=0, empty="no callbacks",
        ),
        lines(
            "Resent runs", "short",
            [Query(counts("mageflow_flow_resends_total{S}", "reason", zeros=True), "{{reason}}")],
            "Runs of steps, items and callbacks that were sent to Hatchet again. lost: Hatchet no longer knows the "
            "run. unscheduled: no worker took it within its schedule timeout, so there are too few workers.",
            width=6, bars=True, decimals=0, empty="nothing resent",
        ),
    ),
)  # fmt: skip

_SIGNATURES = Section(
    "Signatures in Redis",
    (
        lines(
            "Signatures stored", "short",
            [Query("sum by (kind, status) (max by (job, kind, status) (mageflow_signatures{S})) > 0",
                   "{{kind}} {{status}}")],
            "Stored signatures by status. If a status that should be temporary keeps growing, flows are stuck or TTLs "
            "are too long.",
            stacked=True,
        ),
        lines(
            "Signature size p95", "bytes",
            [Query(quantile(0.95, "mageflow_signature_size_bytes_bucket{S}", "kind"), "{{kind}}")],
            "Size of the documents written. Move the data of large ones to another store.",
            steps=((262144, "orange"),),
        ),
        lines(
            "Signature writes", "ops",
            [Query(rate_of_active("mageflow_signature_writes_total{S}", "kind", "operation", "result"),
                   "{{kind}} {{operation}} {{result}}")],
            "Documents created, updated and deleted, and documents whose TTL was extended (touch).",
        ),
        lines(
            "Redis errors", "short",
            [Query(counts("mageflow_redis_errors_total{S}", "operation", "error"), "{{operation}} {{error}}")],
            "Failed round trips to Redis per interval. No bar is good. Plain tasks do not need Redis; signed tasks "
            "wait for it.",
            bars=True, decimals=0, colour="red", empty="no errors",
        ),
        lines(
            "Damaged in Redis", "short",
            [Query(counts("mageflow_store_damaged_total{S}", "kind", zeros=True), "{{kind}}")],
            "Records, indexes and entries of indexes that could not be read and were put aside. `mageflow damaged` "
            "lists them with the reason. Everything else goes on.",
            width=8, bars=True, decimals=0, colour="red", empty="nothing damaged",
        ),
        lines(
            "Redis outages", "short",
            [Query(counts("mageflow_redis_outages_total{S}", "reason", zeros=True), "{{reason}}")],
            "Times that Redis went away or began to refuse. The log event mageflow.redis.outage says what to do.",
            width=8, bars=True, decimals=0, colour="red", empty="no outages",
        ),
        lines(
            "Settlements that wait for Redis", "short",
            [Query("sum(mageflow_settlements_pending{S})", "pending")],
            "Ended attempts whose outcome Redis has not taken yet. Workers repeat them; the next steps wait for them.",
            width=8, steps=((1, "orange"),),
        ),
    ),
)  # fmt: skip

_TRACES = Section(
    "Traces (needs Tempo)",
    (
        PanelSpec(
            "traces", "Recent and slow flows",
            "One row per closed flow, the latest first. Click the span to open the trace with every step.",
            "short", (Query(_FINISHED_FLOWS),), 24, 8,
            empty="no traces", columns=_FLOW_COLUMNS,
        ),
    ),
    collapsed=True,
)  # fmt: skip

_LOGS = Section(
    "Logs (needs Loki)",
    (
        logs(
            "Logs of these flows", lines_with("flow", 'flow=~"$flow_name"'),
            "Lines about the selected flows and the attempts in them.",
        ),
    ),
)  # fmt: skip

BOARD = BoardSpec(
    uid="mageflow-flows",
    title="mageflow / Chains, swarms and callbacks",
    description="Flows from start to close, their handovers and callbacks, and the signatures stored for them.",
    variables=("flow_name",),
    needs_tempo=True,
    needs_loki=True,
    sections=(_RIGHT_NOW, _FLOWS, _SIGNATURES, _TRACES, _LOGS),
)
