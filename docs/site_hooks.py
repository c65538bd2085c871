"""Hooks of the documentation site (``mkdocs.yml``): pages that are made from other files of the repository.

A page links to files outside of ``docs/`` as it does on any host of the repository. The site has a page for each of
these files, and the links lead there. README.md is the front page. The reference of the commands is what they print for
``--help``.
"""

import posixpath
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Final

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from mageflow.cli.group import COMMANDS

ROOT: Final = Path(__file__).parent.parent
_LINK: Final = re.compile(r"(?<=\]\()(?P<target>[^)\s#:]+)(?P<anchor>#[^)\s]*)?(?=\))")
_FENCE: Final = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LANGUAGES: Final = {".py": "python", ".yml": "yaml", ".toml": "toml"}
_origins: dict[str, str] = {}


def site_path(path: str) -> str:
    """Where the site has a file of the repository.

    Args:
        path: Relative to the top of the repository.
    """
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"repository/{path}" if path.endswith((".md", ".png")) else f"repository/{path}.md"


def _target(page: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def _outside_of_blocks(text: str, change: Callable[[str], str]) -> str:
    parts: list[str] = []
    end = 0
    for block in _FENCE.finditer(text):
        parts += [change(text[end : block.start()]), block.group()]
        end = block.end()
    return "".join([*parts, change(text[end:])])


def linked_files(page: str, text: str) -> set[str]:
    """The files of the repository that a page links to, relative to the top of the repository."""
    found: set[str] = set()

    def note(part: str) -> str:
        found.update(_target(page, link["target"]) for link in _LINK.finditer(part))
        return part

    _outside_of_blocks(text, note)
    return {each for each in found if (ROOT / each).is_file()}


def with_site_links(page: str, text: str) -> str:
    """The text of a page with its links as the site has them.

    Args:
        page: Where the page is in the repository.
        text: Its Markdown.
    """
    here = posixpath.dirname(site_path(page))

    def lead(link: re.Match[str]) -> str:
        target = _target(page, link["target"])
        if not (ROOT / target).is_file():
            return link.group()
        return posixpath.relpath(site_path(target), here or ".") + (link["anchor"] or "")

    return _outside_of_blocks(text, lambda part: _LINK.sub(lead, part))


def _content(path: str) -> str:
    text = (ROOT / path).read_text()
    if path.endswith(".md"):
        return text
    return f"# {path}\n\n````{_LANGUAGES.get(Path(path).suffix, 'text')}\n{text}````\n"


def command_page() -> str:
    """The page of the commands: what each prints for ``--help``."""
    parts = ["# Commands\n\nErrors are one line on stderr. Exit status: 0 success, 1 failure, 2 wrong usage.\n"]
    top = click.Context(click.Group("mageflow"), info_name="mageflow", terminal_width=80)
    for name, home in sorted(COMMANDS.items()):
        parts += _help(name, getattr(import_module(home.module), home.attribute), top)
    return "\n".join(parts)


def _help(name: str, command: click.Command, parent: click.Context) -> list[str]:
    context = click.Context(command, info_name=name, parent=parent, terminal_width=80)
    shown = [f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"]
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            if found is not None:
                shown += _help(below, found, context)
    return shown


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the front page, the page of the commands, and a page for every file that a page links to. mkdocs calls it."""
    pages = {f"docs/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    pages["README.md"] = _content("README.md")
    waiting = dict(pages)
    while waiting:
        path, text = waiting.popitem()
        for linked in linked_files(path, text) - set(pages):
            if linked.endswith(".png") or linked.startswith("docs/"):
                continue
            pages[linked] = waiting[linked] = _content(linked)
    for path, text in pages.items():
        if not path.startswith("docs/"):
            files.append(File.generated(config, site_path(path), content=text))
            _origins[site_path(path)] = path
    files.append(File.generated(config, "reference/commands.md", content=command_page()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - mkdocs names them
    """Lead the links of a page to where the site has their files. mkdocs calls it."""
    uri = page.file.src_uri
    return with_site_links(_origins.get(uri, f"docs/{uri}"), markdown)
