"""What must have come of the chain, the swarm and the deadlock."""

from collections.abc import Sequence
from itertools import pairwise

from mageflow.cli.demo.expected import Expectation
from mageflow.cli.demo.facts import Facts
from mageflow.cli.demo.flow_facts import STEPS
from mageflow.cli.demo.play import MOVERS, SWARM_ITEMS, SWARM_PLACES, FlowResult, Play
from mageflow.cli.demo.spans import SpanRecord
from mageflow.telemetry.names import traces

__all__ = ["check_flows"]


def _flow(play: Play, kind: str) -> FlowResult | None:
    return next((flow for flow in play.flows if flow.kind == kind), None)


def _chain_in_order(play: Play, facts: Facts, _spans: Sequence[SpanRecord]) -> Expectation:
    chain = _flow(play, "chain")
    done = chain.output["done"] if chain is not None and isinstance(chain.output, dict) else []
    outcomes = [dict(flow.outcomes) for flow in facts.flows if flow.kind == "chain"]
    return Expectation(
        "a chain runs its steps in order, each with the result of the one before",
        done == ["picked", "packed", "shipped"] and outcomes == [{"succeeded": 1}],
        ", ".join(done) or (chain.error if chain is not None and chain.error else "no result"),
    )


def _chain_is_one_trace(_play: Play, _facts: Facts, spans: Sequence[SpanRecord]) -> Expectation:
    steps = [span for span in spans if span.name in {traces.SPAN_PROCESS(step) for step in STEPS}]
    siblings = {(span.trace_id, span.parent_id) for span in steps}
    linked = [after for before, after in pairwise(steps) if before.span_id in after.links]
    return Expectation(
        "a chain is one trace of siblings, each linked to the one before",
        len(steps) == len(STEPS) and len({trace_id for trace_id, _ in siblings}) == 1 and len(linked) == len(STEPS) - 1,
        f"{len(steps)} steps, {len(linked)} links, {len({trace_id for trace_id, _ in siblings})} trace",
    )


def _swarm_in_task_order(play: Play, facts: Facts, _spans: Sequence[SpanRecord]) -> Expectation:
    swarm = _flow(play, "swarm")
    results = swarm.output if swarm is not None and isinstance(swarm.output, list) else []
    numbers = [each.get("number") if isinstance(each, dict) else None for each in results]
    most = [flow.most_at_once for flow in facts.flows if flow.kind == "swarm"]
    return Expectation(
        f"a swarm gives its results in task order, and never runs more than {SWARM_PLACES} at once",
        numbers == list(range(SWARM_ITEMS)) and len(most) == 1 and 0 < most[0] <= SWARM_PLACES,
        f"{len(results)} results, at most {most[0] if most else 0} at once"
        + (f"; {swarm.error}" if swarm is not None and swarm.error else ""),
    )


def _deadlock_resolved(play: Play, facts: Facts, _spans: Sequence[SpanRecord]) -> Expectation:
    attempts = sorted(
        result.output["attempt"] for name in MOVERS for result in play.of(name) if result.output is not None
    )
    tasks = {task.task: dict(task.outcomes) for task in facts.tasks if task.task in MOVERS}
    return Expectation(
        "two tasks that wait for each other are seen at once: one gives way, is retried, and both succeed",
        attempts == [1, 2]
        and sorted(sum(each.values()) for each in tasks.values()) == [1, 2]
        and all(each.get("succeeded") == 1 for each in tasks.values())
        and facts.deadlocks_by_resolution == {"victim_retried": 1}
        and len(facts.deadlocks) == 1,
        f"attempts {attempts}, counted {dict(facts.deadlocks_by_resolution)}, told of {len(facts.deadlocks)}",
    )


check_flows = (_chain_in_order, _chain_is_one_trace, _swarm_in_task_order, _deadlock_resolved)
"""Every expectation about flows and locks, in the order it is shown."""
