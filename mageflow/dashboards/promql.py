"""PromQL as far as the boards need it: macros, Grafana's variables, and which series and labels a query names.

The reader is a tokenizer, not a parser: it finds selectors, their matchers and ranges, and grouping labels. Whether a
query is valid PromQL is promtool's to say (``tests/dashboards``), never guessed here.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<variable>\$\w+)
    | (?P<string>"(?:[^"\\]|\\.)*")
    | (?P<range>\[[^\]]*\])
    | (?P<number>[0-9][0-9a-zA-Z_.]*)
    | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
    | (?P<op>=~|!~|!=|==|>=|<=|[-+*/%^(){},<>=@])
    )""",
    re.VERBOSE,
)
_LABEL_LISTS = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_WORDS = frozenset({"and", "or", "unless", "bool", "offset", "inf", "nan", "atan2"})


@dataclass(frozen=True, slots=True)
class Matcher:
    """One label matcher of a selector, for example ``outcome=~"failed|timed_out"``."""

    label: str
    op: str
    value: str


@dataclass(frozen=True, slots=True)
class Selector:
    """One series selector of a query.

    ``function`` is the call it is the direct argument of, or ``unless`` or ``offset`` where one of these follows;
    ``calls`` are all calls it stands in, the outermost first.
    """

    metric: str
    matchers: tuple[Matcher, ...] = ()
    range: str = ""
    function: str = ""
    calls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """What a query names: its selectors, the labels it groups or joins by, the labels it makes itself."""

    selectors: tuple[Selector, ...]
    grouping: tuple[str, ...]
    made: tuple[str, ...]


def fill_variables(expr: str, *, rate_interval: str, range_: str, values: Mapping[str, str] | None = None) -> str:
    """The query as Grafana would send it: durations in, and every variable at *All* unless ``values`` names it."""
    seconds = range_.removesuffix("s").replace("h", "*3600")
    filled = expr.replace("$__rate_interval", rate_interval).replace("$__range_s", seconds).replace("$__range", range_)
    chosen = values or {}
    return re.sub(r"\$\{?([a-zA-Z_]\w*)\}?", lambda found: chosen.get(found[1], ".+"), filled)


def _tokens(expr: str) -> Iterator[tuple[str, str]]:
    at = 0
    text = expr.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError(f"cannot read PromQL at {text[at : at + 20]!r} in {expr!r}")
        at = found.end()
        kind = str(found.lastgroup)
        yield kind, found[kind]


def read(expr: str) -> Reading:
    """Find the selectors and labels of a query.

    Raises:
        ValueError: A character is not PromQL.
    """
    tokens = list(_tokens(expr))
    selectors: list[Selector] = []
    grouping: list[str] = []
    made: list[str] = []
    calls: list[str] = []
    at = 0
    while at < len(tokens):
        kind, text = tokens[at]
        following = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        if kind == "name" and text in _LABEL_LISTS:
            at += 1
            if following == "(":
                end = tokens.index(("op", ")"), at)
                grouping += [word for sort, word in tokens[at:end] if sort == "name"]
                at = end + 1
            continue
        if kind == "name" and text not in _WORDS and following != "(" and not _is_aggregation(tokens, at):
            selector, at = _selector(tokens, at, tuple(calls))
            selectors.append(selector)
            continue
        if text == "(":
            previous = tokens[at - 1] if at else ("", "")
            calls.append(previous[1] if previous[0] == "name" else "")
        elif text == ")":
            calls.pop()
        elif kind == "string" and calls and calls[-1] in {"label_replace", "label_join"} and _is_target(tokens, at):
            made.append(text[1:-1])
        at += 1
    return Reading(tuple(selectors), tuple(grouping), tuple(made))


def _is_aggregation(tokens: list[tuple[str, str]], at: int) -> bool:
    return at + 1 < len(tokens) and tokens[at + 1][1] in {"by", "without"}


def _is_target(tokens: list[tuple[str, str]], at: int) -> bool:
    # label_replace(v, "target", ...): the target is the first string after the vector, so no string comes just before.
    return tokens[at - 1][1] == "," and tokens[at - 2][0] != "string"


def _selector(tokens: list[tuple[str, str]], at: int, calls: tuple[str, ...]) -> tuple[Selector, int]:
    metric = tokens[at][1]
    function = calls[-1] if calls else ""
    at += 1
    matchers: list[Matcher] = []
    if at < len(tokens) and tokens[at][1] == "{":
        end = tokens.index(("op", "}"), at)
        words = [token for token in tokens[at + 1 : end] if token[1] != ","]
        triples = zip(words[::3], words[1::3], words[2::3], strict=True)
        matchers = [Matcher(label, op, value[1:-1]) for (_, label), (_, op), (_, value) in triples]
        at = end + 1
    range_ = ""
    if at < len(tokens) and tokens[at][0] == "range":
        range_ = tokens[at][1][1:-1]
        at += 1
    following = tokens[at][1] if at < len(tokens) else ""
    if following in {"unless", "offset"}:
        function = following
        # The amount of an offset is a duration or one of Grafana's variables, and no series.
        at += 2 if following == "offset" else 0
    return Selector(metric, tuple(matchers), range_, function, calls), at
