"""Counts round trips through the hooks that a user's interceptor has."""

from collections import Counter
from contextlib import AbstractContextManager, nullcontext

from mageflow.interceptors import Interceptor, RedisCall


class RoundTrips(Interceptor):
    def __init__(self) -> None:
        self.by_operation: Counter[str] = Counter()

    def redis(self, call: RedisCall) -> AbstractContextManager[None]:
        self.by_operation[call.operation] += 1
        return nullcontext()

    @property
    def total(self) -> int:
        return sum(self.by_operation.values())

    def reset(self) -> None:
        self.by_operation.clear()
