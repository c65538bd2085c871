"""Everything that mageflow uses of Hatchet's Python SDK, and everything it gives to the SDK.

Only the files named `...compat` use private names of the SDK; `compat` also gives the runner its context. `declare` and
`workflow` put mageflow around tasks, `enqueue` around every call that sends a run to the engine, `dispatch` sends the
runs of signatures and flows.
"""

from mageflow.hatchet.features import method_of, refuse_absent  # the first: it refuses an SDK that is too old

# isort: split
from mageflow.hatchet.compat import HiddenFromLogForwarder
from mageflow.hatchet.declaration_compat import debug_of, set_client
from mageflow.hatchet.declare import Declarations
from mageflow.hatchet.dispatch import SdkCatalog, SdkDispatcher
from mageflow.hatchet.enqueue import Enqueuer, ObservedAdminClient, instrumented_client
from mageflow.hatchet.errors_map import as_non_retryable, is_non_retryable
from mageflow.hatchet.forked_clients import note_worker
from mageflow.hatchet.hooks import Hooks
from mageflow.hatchet.input_types import refuse_input_type, unused_input_types
from mageflow.hatchet.options import (
    BatchOptions,
    DurableOptions,
    InferringBatchDecorator,
    InferringDecorator,
    TaskBatchDecorator,
    TaskDecorator,
    TaskOptions,
    WorkflowOptions,
    refuse_bare,
    refuse_no_tasks,
    signed_as,
)
from mageflow.hatchet.private_names import missing_names, require_names
from mageflow.hatchet.register import Declared, TaskRegister
from mageflow.hatchet.rest_limit import bounded
from mageflow.hatchet.run_events import ending_of, has_begun_before
from mageflow.hatchet.signature_runs import SdkSignatureRunner
from mageflow.hatchet.unserved import UnservedWatch
from mageflow.hatchet.waiting_runs import waiting_runs
from mageflow.hatchet.worker_compat import (
    before_exit,
    prepare_listener,
    send_storable_errors,
    set_lifespan,
    slots_of,
    tasks_of_worker,
)
from mageflow.hatchet.workflow import MageflowWorkflow

__all__ = [
    "BatchOptions",
    "Declarations",
    "Declared",
    "DurableOptions",
    "Enqueuer",
    "HiddenFromLogForwarder",
    "Hooks",
    "InferringBatchDecorator",
    "InferringDecorator",
    "MageflowWorkflow",
    "ObservedAdminClient",
    "SdkCatalog",
    "SdkDispatcher",
    "SdkSignatureRunner",
    "TaskBatchDecorator",
    "TaskDecorator",
    "TaskOptions",
    "TaskRegister",
    "UnservedWatch",
    "WorkflowOptions",
    "as_non_retryable",
    "before_exit",
    "bounded",
    "debug_of",
    "ending_of",
    "has_begun_before",
    "instrumented_client",
    "is_non_retryable",
    "method_of",
    "missing_names",
    "note_worker",
    "prepare_listener",
    "refuse_absent",
    "refuse_bare",
    "refuse_input_type",
    "refuse_no_tasks",
    "require_names",
    "send_storable_errors",
    "set_client",
    "set_lifespan",
    "signed_as",
    "slots_of",
    "tasks_of_worker",
    "unused_input_types",
    "waiting_runs",
]
