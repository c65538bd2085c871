"""The installed distribution: its name, its version, and the command that installs an extra of it.

The import name is ``mageflow``. The distribution is ``hatchet-mageflow``: the package index serves another project as
``mageflow``. This module imports nothing of mageflow.
"""

import json
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["DISTRIBUTION", "OTHER_DISTRIBUTION", "installed_version", "installs", "warn_other_distribution"]

DISTRIBUTION = "hatchet-mageflow"
"""The name this project is installed by."""

OTHER_DISTRIBUTION = "mageflow"
"""A different project on the package index that installs an import package of the same name."""


def installed_version() -> str | None:
    """The version of this project, or None when it is imported without being installed."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return None


def installs(extra: str) -> str:
    """The command that installs this project with an extra, as it can be run here.

    A project that was installed from a directory or a built file (PEP 610, ``direct_url.json``) is installed from it
    again, editable if it was. Everything else is installed by the name of the distribution.

    Args:
        extra: ``local``, ``otlp``, ``otlp-grpc``, ``test`` or ``dev``.
    """
    try:
        found = distribution(DISTRIBUTION)
    except PackageNotFoundError:
        # The code is imported from a checkout that was never installed.
        checkout = Path(__file__).parent.parent
        return f"pip install -e {_quoted(f'{checkout}[{extra}]')}"
    source = _source(found)
    if source is None:
        return f"pip install {_quoted(f'{DISTRIBUTION}[{extra}]')}"
    path, is_editable = source
    return f"pip install {'-e ' if is_editable else ''}{_quoted(f'{path}[{extra}]')}"


def warn_other_distribution() -> str | None:
    """A warning when the other project of this import name is installed in the same environment, else None.

    Both install files into one directory ``mageflow``, so whichever came last has overwritten files of the first.
    """
    try:
        other = version(OTHER_DISTRIBUTION)
    except PackageNotFoundError:
        return None
    return (
        f"the distribution {OTHER_DISTRIBUTION!r} {other} is installed beside {DISTRIBUTION!r}: a different project "
        f"with the same import name, and the two overwrite each other's files. Remove both "
        f"(pip uninstall {OTHER_DISTRIBUTION} {DISTRIBUTION}), then install {DISTRIBUTION} again."
    )


def _source(found: Distribution) -> tuple[Path, bool] | None:
    text = found.read_text("direct_url.json")
    if text is None:
        return None
    try:
        document = json.loads(text)
        url, is_archive = urlsplit(document["url"]), "archive_info" in document
        is_editable = not is_archive and bool(document["dir_info"].get("editable"))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    path = Path(unquote(url.path))
    if url.scheme != "file" or not (path if is_archive else path / "pyproject.toml").is_file():
        return None
    return path, is_editable


def _quoted(requirement: str) -> str:
    # Square brackets are patterns in most shells.
    return f"'{requirement}'"
