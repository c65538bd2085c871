"""``mageflow doctor``: examines everything that a worker and its callers depend on, and says how to mend it."""

from mageflow.cli.doctor.command import doctor

__all__ = ["doctor"]
