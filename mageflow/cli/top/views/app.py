"""The Textual application of the live view."""

from collections.abc import Callable, Mapping
from typing import ClassVar

from rich.console import RenderableType
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Footer, OptionList, Static, TabbedContent, TabPane
from textual.widgets.option_list import Option

from mageflow.cli.top.sources import Reader, Snapshot
from mageflow.cli.top.sources.timeline import TraceView, traces_of
from mageflow.cli.top.views.errors import errors_table
from mageflow.cli.top.views.flows import flows_trees
from mageflow.cli.top.views.overview import deadlocks_text, locks_tree, staggers_table, status_line, tasks_table
from mageflow.cli.top.views.waterfall import Waterfall, trace_line

__all__ = ["LiveView"]

_TRACES = 200


class _Panel(VerticalScroll):
    """A titled box with one renderable, which is replaced at each reading."""

    def __init__(self, name: str, title: str) -> None:
        super().__init__(id=name)
        self.border_title = title
        self._content = Static()

    def compose(self) -> ComposeResult:
        yield self._content

    def show(self, renderable: RenderableType) -> None:
        """Replace what is shown."""
        self._content.update(renderable)


_PANELS: Mapping[str, tuple[str, Callable[[Snapshot], RenderableType]]] = {
    "tasks": ("tasks", tasks_table),
    "staggers": ("stagger", staggers_table),
    "locks": ("locks", lambda snapshot: locks_tree(snapshot.locks)),
    "deadlocks": ("deadlocks broken lately", deadlocks_text),
    "flow-trees": ("flows", flows_trees),
    "failures": ("attempts that failed lately", errors_table),
}
"""By id: the title of each panel, and what it shows of a snapshot."""


_FIRST: Mapping[str, str] = {
    "overview": "#tasks",
    "flows": "#flow-trees",
    "errors": "#failures",
    "traces": "#trace-list",
}
"""By id of a tab: what the arrow keys move in it. Tab goes on to its next panel."""


class LiveView(App[None]):
    """Shows a new snapshot every interval.

    Args:
        reader: Where snapshots come from. It is used on the application's event loop.
        interval: Seconds between two readings.
    """

    TITLE = "mageflow top"
    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = _FIRST["overview"]
    CSS = """
    Screen { overflow: hidden; }
    TabbedContent { height: 1fr; }
    #status { height: auto; padding: 0 1; background: $panel; }
    _Panel { border: round $primary; padding: 0 1; }
    _Panel:focus, #trace-list:focus { border: round $accent; }
    #tasks { height: 3fr; }
    #lower { height: 2fr; }
    #locks { width: 1fr; }
    #side { width: 1fr; }
    #trace-list { width: 2fr; height: 1fr; border: round $primary; }
    #waterfall { width: 3fr; }
    TabPane { padding: 0; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number), f"tab('{name}')", name.capitalize()) for number, name in enumerate(_FIRST, start=1)),
        Binding("q", "quit", "Quit"),
        Binding("space", "pause", "Pause"),
        Binding("r", "read_now", "Read now"),
    ]

    def __init__(self, reader: Reader, interval: float) -> None:
        super().__init__()
        self._reader = reader
        self._interval = interval
        self._is_paused = False
        # Kept, not looked up: a reading may end while the screen is being taken down.
        self._status = Static(id="status")
        self._panels = {name: _Panel(name, title) for name, (title, _) in _PANELS.items()}
        self._trace_list = OptionList(id="trace-list")
        self._trace_list.border_title = "traces"
        self._waterfall = _Panel("waterfall", "where its time went")
        self._traces: dict[str, TraceView] = {}
        self.snapshot: Snapshot | None = None
        """The one that is shown; None before the first reading."""

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        panels = self._panels
        yield self._status
        with TabbedContent():
            with TabPane("Overview", id="overview"), Vertical():
                yield panels["tasks"]
                with Horizontal(id="lower"):
                    yield panels["locks"]
                    with Vertical(id="side"):
                        yield panels["staggers"]
                        yield panels["deadlocks"]
            with TabPane("Flows", id="flows"):
                yield panels["flow-trees"]
            with TabPane("Errors", id="errors"):
                yield panels["failures"]
            with TabPane("Traces", id="traces"), Horizontal():
                yield self._trace_list
                yield self._waterfall
        yield Footer()

    def on_mount(self) -> None:
        """Begin to read."""
        self.set_interval(self._interval, self._tick)
        self.action_read_now()

    def _tick(self) -> None:
        if not self._is_paused:
            self.action_read_now()

    def action_read_now(self) -> None:
        """Read now. A reading that still lasts goes on: there are never two at once."""
        if not any(worker.group == "read" and worker.is_running for worker in self.workers):
            self.run_worker(self._read(), group="read")

    def action_pause(self) -> None:
        """Stop reading, or go on."""
        self._is_paused = not self._is_paused
        self.sub_title = "paused" if self._is_paused else ""
        if self.snapshot is not None:
            self._show(self.snapshot)

    async def _read(self) -> None:
        self._show(await self._reader.read())

    def _show(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        status = status_line(snapshot)
        if self._is_paused:
            status.append(" · paused", "bold yellow")
        self._status.update(status)
        for name, (_, draw) in _PANELS.items():
            self._panels[name].show(draw(snapshot))
        self._show_traces(snapshot)

    def _show_traces(self, snapshot: Snapshot) -> None:
        traces = traces_of(snapshot.attempts)[:_TRACES]
        chosen = self._trace_list.highlighted_option
        self._traces = {trace.id: trace for trace in traces}
        self._trace_list.set_options([Option(trace_line(trace, snapshot.at), id=trace.id) for trace in traces])
        ids = list(self._traces)
        # The one that was chosen stays chosen while it is known; else the one that began last.
        if ids:
            is_known = chosen is not None and chosen.id in self._traces
            self._trace_list.highlighted = ids.index(str(chosen.id)) if chosen is not None and is_known else 0
        self._show_waterfall()

    def _show_waterfall(self) -> None:
        chosen = self._trace_list.highlighted_option
        trace = None if chosen is None else self._traces.get(str(chosen.id))
        self._waterfall.show(Text("no attempt is known on this host", "dim") if trace is None else Waterfall(trace))

    def on_option_list_option_highlighted(self) -> None:
        """Show the trace that the user has chosen."""
        self._show_waterfall()

    def action_tab(self, name: str) -> None:
        """Change to a tab."""
        # A widget that has the focus brings its own tab back.
        self.set_focus(None)
        self.query_one(TabbedContent).active = name
        self.query_one(_FIRST[name]).focus()
