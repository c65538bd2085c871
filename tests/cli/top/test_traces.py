"""Attempts as traces: what belongs together, and where its time went."""

import asyncio

import pytest

from mageflow.cli.demo.shop import Order
from mageflow.cli.top.sources.snapshot import RunAttempt
from mageflow.cli.top.sources.timeline import Segment, traces_of
from tests.cli.top.conftest import reading, until


def attempt(**facts):
    known = {
        "task": "t", "run_id": "r", "task_run_id": "r", "attempt": 1, "max_attempts": 2, "worker": "w",
        "trace_id": "trace", "flow": "", "flow_kind": "", "flow_id": "", "flow_step": 0, "queue_wait_s": None,
        "started_at": 100.0, "elapsed_s": 1.0, "stages": {"body": 1.0}, "phase": "", "outcome": "succeeded",
        "exception": "", "message": "", "will_retry": False,
    }  # fmt: skip
    return RunAttempt(**{**known, **facts})


def test_a_retried_run_is_one_trace_with_the_pause_between_its_attempts():
    """The trace begins when the run was enqueued; each second of it is in one part."""
    [trace] = traces_of(
        [
            attempt(
                queue_wait_s=0.5, elapsed_s=3.0, outcome="retried",
                stages={"body": 1.0, "stagger": 1.5, "lock_wait": 0.5},
            ),
            attempt(attempt=2, started_at=105.0),
        ]
    )  # fmt: skip

    assert (trace.began_at, trace.seconds, trace.outcome) == (99.5, 6.5, "succeeded")
    assert trace.lines[0].segments == (
        Segment("queue", 0.0, 0.5),
        Segment("stagger", 0.5, 1.5),
        Segment("lock_wait", 2.0, 0.5),
        Segment("body", 2.5, 1.0),
    )
    assert trace.lines[1].segments == (Segment("retry", 3.5, 2.0), Segment("body", 5.5, 1.0))
    assert sum(trace.budget.values()) == trace.seconds


def test_runs_of_a_trace_belong_together_and_untraced_ones_by_flow_or_run():
    """The trace that began last comes first."""
    traces = traces_of(
        [
            attempt(run_id="a", trace_id="", started_at=1.0),
            attempt(run_id="b", trace_id="", flow_id="f", flow_kind="chain", flow="order", started_at=2.0),
            attempt(run_id="c", trace_id="", flow_id="f", flow_kind="chain", flow="order", started_at=3.0),
            attempt(run_id="d", started_at=4.0, phase="running", outcome=""),
        ]
    )

    assert [(trace.id, trace.name, len(trace.lines)) for trace in traces] == [
        ("trace", "t", 1),
        ("f", "order", 2),
        ("a", "t", 1),
    ]
    assert [trace.is_running for trace in traces] == [True, False, False]
    assert traces[0].outcome == ""


@pytest.mark.slow
async def test_flows_errors_and_traces_of_real_runs(services, workload):
    """A chain is a tree with the runs of its steps, a failed run is two attempts, and a trace has their stages."""
    async with workload() as work, reading(services) as reader:
        flaky = await work.run(work.shop.named("checkout.flaky"), Order(number=1))
        refused = await work.run(work.shop.named("checkout.refuse"), Order(number=2))
        chain = await work.chain(Order(number=3, seconds=0.1))
        swarm = await work.swarm(0.1)
        await asyncio.gather(*(run.wait(30) for run in (flaky, refused, chain, swarm)))
        snapshot = await until(
            reader.read,
            lambda s: (
                {flow.status for flow in s.flows} == {"done"}
                and len(s.flows) == 2
                and any(each.run_id == refused.run_id and each.outcome == "failed" for each in s.attempts)
                and not any(each.phase for each in s.attempts)
            ),
        )

    flows = {flow.kind: flow for flow in snapshot.flows}
    assert (flows["chain"].key, flows["chain"].done, flows["chain"].total) == (chain.key, 3, 3)
    assert (flows["swarm"].key, flows["swarm"].done, flows["swarm"].total) == (swarm.key, 12, 12)
    steps = [member for member in flows["chain"].members if member.role == "step"]
    assert [member.task for member in steps] == ["order.pick", "order.wrap", "order.ship"]
    known = {each.run_id for each in snapshot.attempts}
    assert {member.run_id for flow in snapshot.flows for member in flow.members} <= known
    assert 0 < flows["chain"].seconds < snapshot.at - flows["chain"].started_at

    failed = [each for each in snapshot.attempts if each.run_id == refused.run_id]
    assert [(each.attempt, each.outcome, each.exception) for each in failed] == [
        (1, "retried", "PaymentRefusedError"),
        (2, "failed", "PaymentRefusedError"),
    ]
    traces = {trace.id: trace for trace in traces_of(snapshot.attempts)}
    of_flaky = next(t for t in traces.values() if any(line.attempt.run_id == flaky.run_id for line in t.lines))
    assert [line.attempt.outcome for line in of_flaky.lines] == ["retried", "succeeded"]
    assert sum(of_flaky.budget.values()) == pytest.approx(of_flaky.seconds, abs=0.01)
    of_chain = next(
        t for t in traces.values() if any(line.attempt.flow_id in chain.key for line in t.lines if line.attempt.flow_id)
    )
    assert {"order.pick", "order.wrap", "order.ship"} <= {line.attempt.task for line in of_chain.lines}
