"""The five dashboards, as data. Each module describes one dashboard."""

from dashboards.generator.boards import flows, locks, overview, stagger, task
from dashboards.generator.spec import BoardSpec

BOARDS: tuple[BoardSpec, ...] = (overview.BOARD, task.BOARD, stagger.BOARD, locks.BOARD, flows.BOARD)
"""In the order of the README."""
