"""The root of the tree, and the errors of a program or of its settings."""

from typing import ClassVar


class MageflowError(Exception):
    """Base class of every error that mageflow raises.

    Attributes:
        retryable: True if the same call may succeed later without a change to the program.
    """

    retryable: ClassVar[bool] = False


class ConfigurationError(MageflowError, ValueError):
    """The program or its settings must change. Also a ``ValueError``; a retry cannot help."""


class DecorationError(ConfigurationError):
    """A decorator cannot work on this function, or with these arguments. Raised at declaration, never in a run.

    Attributes:
        decorator: The decorator's name, for example ``stagger_execution``.
        target: The qualified name of the decorated object.
        reason: What is wrong, and the line to write instead.
    """

    def __init__(self, decorator: str, target: str, reason: str) -> None:
        self.decorator = decorator
        self.target = target
        self.reason = reason
        super().__init__(f"@{decorator} on {target}: {reason}")


class ForkedProcessError(ConfigurationError):
    """Hatchet was called in a forked child whose parent had used gRPC before the fork. The call would wait for ever.

    Attributes:
        call: What was called, for example ``TriggerWorkflow``.
    """

    def __init__(self, call: str) -> None:
        self.call = call
        super().__init__(
            f"{call}: gRPC does not work in this forked child, because its parent had used it before the fork: start "
            'the child with multiprocessing.get_context("spawn"), fork before the first call to Hatchet, or make the '
            "call in the parent"
        )


class RedisNotConfiguredError(ConfigurationError):
    """An operation needs Redis and the client has none. Raised by the first such operation, not at construction.

    Attributes:
        operation: The operation, for example ``sign``.
    """

    def __init__(self, operation: str) -> None:
        self.operation = operation
        super().__init__(
            f"{operation} keeps its state in Redis, and this client has none: write "
            "Mageflow(Hatchet(), redis_client='redis://localhost:6379'), or set MAGEFLOW_REDIS_URL or REDIS_URL. "
            "Plain tasks need no Redis."
        )


class SdkFeatureError(ConfigurationError):
    """The installed hatchet-sdk lacks something that a newer one has, for example batch tasks.

    Attributes:
        feature: What it lacks.
        installed: The version that is installed.
    """

    def __init__(self, feature: str, installed: str) -> None:
        self.feature = feature
        self.installed = installed
        super().__init__(f"hatchet-sdk {installed} has no {feature}: pip install --upgrade hatchet-sdk")
