"""Merges bound values, a message, and the previous result or error into one input. Pure, no I/O.

The layers, from weakest to strongest:

1. defaults of the task's input model; the worker applies them to fields that no layer has;
2. the whole message of a run, as Hatchet alone would send it: unset fields have the values that the caller's object
   held, so a ``default_factory`` is not called again;
3. values bound when the flow was created (``client.chain(..., **kwargs)``), the outermost flow first;
4. values bound when the signature was created (``client.sign(task, **kwargs)``);
5. the fields that the caller **set** in the message (`SentMessage.explicit`);
6. the previous result or the error, in the field for it.

Objects merge key by key, at every depth. Any other value, lists too, is replaced as a whole.
"""

from collections.abc import Mapping
from typing import Any, cast

__all__ = ["deep_merge"]


def deep_merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the layers into a new object; the last layer wins.

    >>> deep_merge({"a": {"x": 1, "y": 1}, "b": [1, 2]}, {"a": {"y": 2}, "b": [3]})
    {'a': {'x': 1, 'y': 2}, 'b': [3]}
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            mine = merged.get(name)
            if isinstance(value, Mapping):
                below = cast("Mapping[str, Any]", mine) if isinstance(mine, Mapping) else {}
                merged[name] = deep_merge(below, cast("Mapping[str, Any]", value))
            else:
                merged[name] = value
    return merged
