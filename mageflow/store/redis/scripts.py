"""Lua scripts as typed values: one file is one decision, and its declaration must agree with its header.

A script file opens with a header::

    -- <name>: one sentence.
    --
    -- KEYS
    --   record   hash   what the key holds
    -- ARGS
    --   path     text   what the argument is
    --   ...      text   what repeats, if anything does
    -- RESULT   what the script returns
    -- TTL      which keys get which TTL
    -- ATOMIC   what would go wrong if this were two steps
    -- INCLUDE  library          (optional: lua/lib_<library>.lua is put in front of the script)
    -- FIRST    library          (optional: put in front of everything, even of the check of permissions: it answers the
                                usual case by itself, and checks what it may write)

`Script` compares its ``keys`` and ``args`` with that header when the source is first read, so a renamed or reordered
argument fails before it reaches a server. Scripts read their inputs by position; ``...`` must be last.

This module owns the loading and checking of Lua. It refuses to run it.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files

from mageflow._frozen import frozen
from mageflow.errors import ConfigurationError

__all__ = ["Script", "ScriptHeader"]

_SECTION = re.compile(r"^-- (KEYS|ARGS|RESULT|TTL|ATOMIC|INCLUDE|FIRST)\b *(.*)$")
_SLOT = re.compile(r"^--   (\S+)(?: |$)")
_REQUIRED = ("RESULT", "TTL", "ATOMIC")
_COMMAND = re.compile(r"\b(?:redis\.p?call|on_index)\('([A-Z]+)'")
_WRITES = frozenset(
    ("DEL", "EXPIRE", "HDEL", "HSET", "LPUSH", "LREM", "LTRIM", "PEXPIRE", "RPUSH", "SET", "ZADD", "ZREM")
)
_CHECK = """do
  local function check(command, key)
    if redis.acl_check_cmd(command, key) then return end
    error(redis.error_reply('NOPERM no permissions to run the command ' .. command .. ' on ' .. key))
  end
  if redis.acl_check_cmd and KEYS[1] then
    for _, command in ipairs({%s}) do check(command, KEYS[1]) end
    for i, key in ipairs(KEYS) do
      if i == %d then key = key .. ':x' end  -- what the keys of counts begin with
      check('HSET', key)
      check('HGET', key)
    end
  end
end"""


@frozen
class ScriptHeader:
    """The header of a script."""

    summary: str
    keys: tuple[str, ...]
    args: tuple[str, ...]
    notes: dict[str, str]
    """RESULT, TTL, ATOMIC, INCLUDE and FIRST, each joined to one line."""

    @classmethod
    def parse(cls, name: str, source: str) -> "ScriptHeader":
        """Read the header of ``lua/<name>.lua``.

        Raises:
            ConfigurationError: The header lacks its first line, RESULT, TTL or ATOMIC.
        """
        lines = source.splitlines()
        start = f"-- {name}: "
        if not lines or not lines[0].startswith(start):
            raise ConfigurationError(f"lua/{name}.lua must open with {start!r} and one sentence")
        slots: dict[str, list[str]] = {"KEYS": [], "ARGS": []}
        notes: dict[str, str] = {}
        section = ""
        for line in lines[1:]:
            if not line.startswith("--"):
                break
            if match := _SECTION.match(line):
                section = match[1]
                if section not in slots:
                    notes[section] = match[2]
            elif section in slots and (slot := _SLOT.match(line)):
                slots[section].append(slot[1])
            elif section in notes:
                notes[section] = f"{notes[section]} {line.removeprefix('--').strip()}".strip()
        if missing := [each for each in _REQUIRED if not notes.get(each)]:
            raise ConfigurationError(f"the header of lua/{name}.lua lacks {', '.join(missing)}")
        return cls(lines[0].removeprefix(start), tuple(slots["KEYS"]), tuple(slots["ARGS"]), notes)


@dataclass(frozen=True)
class Script:
    """One Lua script and the names of what it takes.

    Args:
        name: The file is ``lua/<name>.lua``; also the ``operation`` of its round trips in telemetry.
        keys: Names of KEYS, in order.
        args: Names of ARGV, in order; a last name ``...`` accepts any number.
        prelude: Lua that is put in front of everything: constants and tables that Python owns.
    """

    name: str
    keys: Sequence[str]
    args: Sequence[str]
    prelude: str = ""

    @cached_property
    def source(self) -> str:
        """The text sent to Redis, libraries included.

        Raises:
            ConfigurationError: The file's header names other keys or arguments than this declaration.
        """
        text = _read(self.name)
        header = ScriptHeader.parse(self.name, text)
        if header.keys != tuple(self.keys) or header.args != tuple(self.args):
            raise ConfigurationError(
                f"lua/{self.name}.lua takes KEYS {header.keys} and ARGS {header.args}, "
                f"but is declared with {tuple(self.keys)} and {tuple(self.args)}"
            )
        libraries = header.notes.get("INCLUDE", "").split()
        body = "\n".join([*(_read(f"lib_{each}") for each in libraries), text])
        first = [_read(f"lib_{each}") for each in header.notes.get("FIRST", "").split()]
        return "\n".join([self.prelude, *first, _permission_check(self.keys, body), body])

    @cached_property
    def sha(self) -> str:
        """The hash that EVALSHA names it by. Redis chose SHA-1; it is no safeguard."""
        return hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    @cached_property
    def _fixed_arguments(self) -> tuple[int, bool]:
        """How many arguments each call has, and whether more may follow. Computed once: each call is checked."""
        fixed = sum(each != "..." for each in self.args)
        return fixed, fixed < len(self.args)

    def check(self, keys: Sequence[str], args: Sequence[object]) -> None:
        """Check that a call fits the declaration.

        Raises:
            ConfigurationError: Too many or too few keys or arguments.
        """
        fixed, takes_more = self._fixed_arguments
        fits = len(args) >= fixed if takes_more else len(args) == fixed
        many_keys = self.keys and self.keys[-1] == "..."
        if not fits or (len(keys) < len(self.keys) - 1 if many_keys else len(keys) != len(self.keys)):
            raise ConfigurationError(
                f"{self.name} takes keys {tuple(self.keys)} and arguments {tuple(self.args)}; "
                f"it was given {len(keys)} and {len(args)}"
            )


def _permission_check(keys: Sequence[str], body: str) -> str:
    """Lua that ends a script before it writes anything, if the user may not run one of its commands.

    Redis checks each command of a script on its own, and takes nothing back when the third of five is refused.
    """
    commands = sorted(set(_COMMAND.findall(body)))
    if not set(commands) & _WRITES:
        return ""
    prefix = keys.index("stats") + 1 if "stats" in keys else 0
    return _CHECK % (",".join(f"'{each}'" for each in commands), prefix)


def _read(name: str) -> str:
    return files("mageflow.store").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
