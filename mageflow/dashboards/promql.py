"""Finds the series, labels and ranges that a PromQL query names, and fills in Grafana's variables.

This is a tokenizer, not a parser: it does not check whether a query is valid PromQL. The tests use promtool for that.
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
_KEYWORDS = frozenset({"and", "or", "unless", "bool", "offset", "inf", "nan", "atan2"})

_Token = tuple[str, str]
"""Kind (a group name of `_TOKEN`) and text."""


@dataclass(frozen=True, slots=True)
class Matcher:
    """One label matcher of a selector, for example ``outcome=~"failed|timed_out"``."""

    label: str
    op: str
    value: str


@dataclass(frozen=True, slots=True)
class Selector:
    """One series selector of a query."""

    metric: str
    matchers: tuple[Matcher, ...] = ()
    range: str = ""
    """The text between the brackets, for example ``5m`` or ``$__rate_interval``; empty without a range."""
    function: str = ""
    """The function the selector is a direct argument of, or ``unless`` or ``offset`` if that keyword follows it."""
    calls: tuple[str, ...] = ()
    """All calls around the selector, outermost first; a plain pair of parentheses is an empty string."""


@dataclass(frozen=True, slots=True)
class QueryParts:
    """The selectors and labels that a query names."""

    selectors: tuple[Selector, ...]
    grouping_labels: tuple[str, ...]
    """Labels after ``by``, ``without``, ``on``, ``ignoring``, ``group_left`` and ``group_right``."""
    created_labels: tuple[str, ...]
    """Labels that ``label_replace`` and ``label_join`` write."""


def scan(expr: str) -> QueryParts:
    """Find the selectors and labels of a query. Grafana's variables may be in values and ranges.

    Raises:
        ValueError: The query contains a character that is not PromQL.
    """
    tokens = list(_tokens(expr))
    selectors: list[Selector] = []
    grouping: list[str] = []
    created: list[str] = []
    calls: list[str] = []
    at = 0
    while at < len(tokens):
        kind, text = tokens[at]
        following = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        if kind == "name" and text in _LABEL_LISTS:
            at += 1
            if following == "(":
                end = tokens.index(("op", ")"), at)
                grouping += [label for sort, label in tokens[at:end] if sort == "name"]
                at = end + 1
            continue
        if kind == "name" and text not in _KEYWORDS and following != "(" and not _is_aggregation(tokens, at):
            selector, at = _selector(tokens, at, tuple(calls))
            selectors.append(selector)
            continue
        if text == "(":
            previous = tokens[at - 1] if at else ("", "")
            calls.append(previous[1] if previous[0] == "name" else "")
        elif text == ")":
            calls.pop()
        elif kind == "string" and calls and calls[-1] in {"label_replace", "label_join"} and _is_target(tokens, at):
            created.append(text[1:-1])
        at += 1
    return QueryParts(tuple(selectors), tuple(grouping), tuple(created))


def fill_variables(expr: str, *, rate_interval: str, range_: str, values: Mapping[str, str] | None = None) -> str:
    """Replace Grafana's variables in a query, as Grafana does before it sends the query.

    Args:
        expr: The query as it is in the dashboard's JSON.
        rate_interval: A PromQL duration for ``$__rate_interval``, for example ``60s``.
        range_: A PromQL duration in ``s`` or ``h`` for ``$__range``.
        values: Values of variables by name. Every other variable is set to *All*, the regular expression ``.+``.
    """
    seconds = range_.removesuffix("s").replace("h", "*3600")
    # Grafana's interval is the rate interval without one scrape, or less.
    milliseconds = rate_interval.removesuffix("s").replace("h", "*3600").replace("m", "*60") + "*1000"
    filled = expr.replace("$__interval_ms", milliseconds).replace("$__rate_interval", rate_interval)
    filled = filled.replace("$__interval", rate_interval)
    filled = filled.replace("$__range_s", seconds).replace("$__range", range_)
    chosen = values or {}
    return re.sub(r"\$\{?([a-zA-Z_]\w*)\}?", lambda found: chosen.get(found[1], ".+"), filled)


def _tokens(expr: str) -> Iterator[_Token]:
    at = 0
    text = expr.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError(f"cannot read PromQL at {text[at : at + 20]!r} in {expr!r}")
        at = found.end()
        kind = str(found.lastgroup)
        yield kind, found[kind]


def _is_aggregation(tokens: list[_Token], at: int) -> bool:
    return at + 1 < len(tokens) and tokens[at + 1][1] in {"by", "without"}


def _is_target(tokens: list[_Token], at: int) -> bool:
    # In label_replace(vector, "target", ...) the target is the first string: no other string comes directly before it.
    return tokens[at - 1][1] == "," and tokens[at - 2][0] != "string"


def _selector(tokens: list[_Token], at: int, calls: tuple[str, ...]) -> tuple[Selector, int]:
    """Read the selector that begins at a token; get it and the index of the token after it."""
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
        # Skip the duration after `offset`: it may be one of Grafana's variables, which is not a series.
        at += 2 if following == "offset" else 0
    return Selector(metric, tuple(matchers), range_, function, calls), at
