"""The ``Dispatcher`` methods of worker processes: registration, the action stream, heartbeats, labels."""

from __future__ import annotations

from collections.abc import AsyncIterator

from mageflow.engine.contracts import dispatcher_pb2 as pb
from mageflow.engine.errors import InvalidRequestError
from mageflow.engine.repository import Repository
from mageflow.engine.rpc.table import Handler, server_stream, unary
from mageflow.engine.settings import ENGINE_VERSION
from mageflow.engine.workers import Workers, labels_of


class WorkerMethods:
    """Methods that a worker calls about itself.

    Args:
        tenant_id: the id of the one tenant.
        repository: where workers are found.
        workers: registers them and follows their streams.
    """

    def __init__(self, tenant_id: str, repository: Repository, workers: Workers) -> None:
        self._tenant_id = tenant_id
        self._repository = repository
        self._workers = workers

    def table(self) -> dict[str, Handler]:
        """Return the methods by name."""
        return {
            "GetVersion": unary(pb.GetVersionRequest, self._get_version),
            "Register": unary(pb.WorkerRegisterRequest, self._register),
            "ListenV2": server_stream(pb.WorkerListenRequest, self._listen),
            "Heartbeat": unary(pb.HeartbeatRequest, self._heartbeat),
            "Unsubscribe": unary(pb.WorkerUnsubscribeRequest, self._unsubscribe),
            "UpsertWorkerLabels": unary(pb.UpsertWorkerLabelsRequest, self._upsert_labels),
        }

    def _get_version(self, _request: pb.GetVersionRequest) -> pb.GetVersionResponse:
        return pb.GetVersionResponse(version=ENGINE_VERSION)

    def _register(self, request: pb.WorkerRegisterRequest) -> pb.WorkerRegisterResponse:
        if not request.worker_name:
            raise InvalidRequestError("a worker needs a name")
        worker = self._workers.register(request)
        return pb.WorkerRegisterResponse(tenant_id=self._tenant_id, worker_id=worker.id, worker_name=worker.name)

    async def _listen(self, request: pb.WorkerListenRequest) -> AsyncIterator[pb.AssignedAction]:
        worker = self._repository.worker(request.worker_id)
        async for action in self._workers.listen(worker):
            yield action

    def _heartbeat(self, request: pb.HeartbeatRequest) -> pb.HeartbeatResponse:
        self._workers.heartbeat(request.worker_id)
        return pb.HeartbeatResponse()

    def _unsubscribe(self, request: pb.WorkerUnsubscribeRequest) -> pb.WorkerUnsubscribeResponse:
        return pb.WorkerUnsubscribeResponse(tenant_id=self._tenant_id, worker_id=request.worker_id)

    def _upsert_labels(self, request: pb.UpsertWorkerLabelsRequest) -> pb.UpsertWorkerLabelsResponse:
        worker = self._repository.worker(request.worker_id)
        self._workers.upsert_labels(worker, labels_of(request.labels))
        return pb.UpsertWorkerLabelsResponse(tenant_id=self._tenant_id, worker_id=worker.id)
