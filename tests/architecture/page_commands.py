"""The commands and files on the pages: how a block of shell becomes commands, and what is not run here, and why."""

import re
from typing import Final

__all__ = ["INSTALLS", "INTERACTIVE", "NOT_RUN", "NO_PROGRAM", "RUNNING", "commands", "is_install"]

NOT_RUN: Final = {
    "claude mcp add": "a program of another project; tests/cli/mcp starts the server that it registers",
    "docker compose up --build": "needs a Docker daemon; tests/dashboards/test_board_stack.py checks the file",
    "kubectl apply": "needs a cluster; tests/dashboards/test_kubernetes_manifests.py checks the manifests",
    "mageflow demo --serve &": "a minute long; tests/cli/test_interrupts.py runs it",
    "prometheus --config.file=": "tests/dashboards/test_board_promql.py loads the configuration",
    "mageflow dashboards check --prometheus": "tests/dashboards/test_live_boards.py runs it with a Prometheus",
    "python -m dashboards.generator": "writes into the checkout; tests/dashboards/test_board_regeneration.py runs it",
    "pytest tests/dashboards": "a part of this suite",
    ". .venv/bin/activate": "the environment of these tests is active",
    'eval "$(_MAGEFLOW_COMPLETE=': "tests/cli/test_completion.py completes in a real shell",
    "_MAGEFLOW_COMPLETE=": "tests/cli/test_completion.py completes in a real shell",
}
"""Commands that are not run as read, by their beginning, with the reason."""

INSTALLS: Final = ("pip install", "pip uninstall", "python3 -m venv")
"""Commands that would change an environment. Their requirements are checked, and the programs after them exist."""

RUNNING: Final = {
    "mageflow engine --redis": ("MAGEFLOW_REDIS_URL", " --name pages --grpc-port 0 --api-port 0 --redis-port 0"),
    "mageflow run -- python examples/stagger.py worker": ("waiting for tasks", ""),
    "mageflow top --web": ("Ctrl-C ends it", " --port 0"),
    "mageflow mcp --http 18090": ("Ctrl-C ends it", ""),
    "mageflow dev worker.py": ("worker.started", ""),
}
"""Commands that run until Ctrl-C: what they print when they are ready, and what keeps them off the ports of others."""

INTERACTIVE: Final = {"mageflow top": "Traces", "mageflow run -- mageflow top": "Traces"}
"""Commands that fill a terminal until `q`: what is on the screen when they are ready."""

NO_PROGRAM: Final = {
    "CONTRIBUTING.md": "patterns to copy, with names of your own",
    "docs/architecture.md": "the floors, which tests/architecture/test_page_commands.py compares",
    "docs/storage.md": "a stored chain, as redis-cli would show it",
    "docs/troubleshooting.md": "sentences, which tests/architecture/test_troubleshooting.py compares",
    "docs/how-to/existing-worker.md": "a change of one line",
}
"""Pages that have blocks which are no program, with what they are."""


def commands(text: str) -> list[str]:
    """The commands of a block of shell: lines, joined at a backslash, without their comments."""
    joined = re.sub(r"\\\n\s*", "", text)
    lines = (re.sub(r"(^|\s+)# .*$", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line]


def is_install(command: str) -> bool:
    """Whether a command changes an environment."""
    return command.startswith(INSTALLS)
