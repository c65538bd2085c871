"""What a run of a signature or flow is given and hands on to every run that belongs to it. Pure, no I/O."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mageflow.errors import ConfigurationError, SignatureInvalidError

__all__ = ["RunOptions"]


class RunOptions(BaseModel):
    """Options that steps, items, callbacks and nested flows inherit.

    Attributes:
        metadata: Additional metadata of the program: names and JSON values.
        priority: Hatchet's priority, 1 low to 3 high; None leaves each task its own.
    """

    model_config = ConfigDict(frozen=True)

    metadata: dict[str, Any] = Field(default_factory=dict)
    priority: int | None = Field(default=None, ge=1, le=3)

    @classmethod
    def checked(cls, metadata: object, priority: object) -> Self:
        """The options as a program gave them.

        Raises:
            ConfigurationError: The metadata is no mapping, or the priority is not 1, 2 or 3.
        """
        try:
            return cls.model_validate({"metadata": metadata or {}, "priority": priority})
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            name = "additional_metadata" if first["loc"][0] == "metadata" else "priority"
            raise ConfigurationError(f"{name} cannot be used: {first['msg']}") from error

    @classmethod
    def read(cls, key: str, text: str) -> Self:
        """The options as they are stored; none for an empty text.

        Raises:
            SignatureInvalidError: The text is damaged; the error names ``key``.
        """
        try:
            return cls.model_validate_json(text) if text else cls()
        except ValidationError as error:
            raise SignatureInvalidError(key, f"its stored options cannot be read ({error.error_count()})") from error

    def text(self) -> str:
        """JSON text, as it is stored; empty for no options.

        Raises:
            ConfigurationError: A value of the metadata has no JSON form.
        """
        if not self.metadata and self.priority is None:
            return ""
        try:
            return self.model_dump_json(exclude_defaults=True)
        except ValueError as error:
            raise ConfigurationError(f"additional_metadata cannot be stored as JSON: {error}") from error
