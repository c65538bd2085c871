"""What every test of this repository can rely on.

The fixtures ``mageflow_*`` come from the package's own plugin, found by pytest through its entry point as in any
program that has mageflow installed. Nothing here imports the SDK: a test that needs neither engine nor worker
starts at once.
"""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# What a developer has set for a real Hatchet must not lead a test there. `mageflow_engine` sets its own.
_FOREIGN = ("HATCHET_", "MAGEFLOW_", "REDIS_URL", "OTEL_", "PROMETHEUS_MULTIPROC_DIR")


def pytest_configure(config: pytest.Config) -> None:
    """Take the developer's own settings out of the environment before anything reads them."""
    for name in [name for name in os.environ if name.startswith(_FOREIGN)]:
        del os.environ[name]
    if not config.pluginmanager.has_plugin("mageflow"):
        raise pytest.UsageError("the package is not installed here: pip install -e '.[test]'")


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the checkout."""
    return ROOT
