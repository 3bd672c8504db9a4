"""Show equations, cross references, programs, hyperparameters and the top level's pages, while mkdocs builds the site.

MathML is drawn by the browser itself, so the pages load no script and no font for their equations.
"""

from __future__ import annotations

import html
import logging
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from bimodal_cl.losses.module.registry import LOSS_SETTINGS

_log = logging.getLogger("mkdocs.hooks")

# Pages that stand beside the README, where hosts of repositories look for them.
_TOP_LEVEL = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
# A line that consists of a link to a program, which the page replaces by its code; elsewhere such a link stays a link.
_EXAMPLE = re.compile(r"^\[docs/(?P<path>examples/\w+\.py)\]\((?P=path)\)$", flags=re.MULTILINE)
# A line that asks for the table of a loss's hyperparameters.
_HYPERPARAMETERS = re.compile(r"^<!-- hyperparameters: (?P<loss>\w+) -->$", flags=re.MULTILINE)
# What pymdownx.arithmatex leaves for a renderer: \(...\) in a line, \[...\] on lines of its own.
_EQUATION = re.compile(
    r'<(span|div) class="arithmatex">\\(?:\((?P<inline>.*?)\\\)|\[(?P<block>.*?)\\\])</\1>', flags=re.DOTALL
)
# A cross reference of a docstring, :class:`~package.module.Name`, as Markdown leaves it.
_REFERENCE = re.compile(r":(?:attr|class|data|func|meth|mod):<code>(?P<short>~?)(?P<target>[\w.]+)</code>")
# What a browser loads by itself from another host.
_REQUEST = re.compile(
    r"""<(?:script|img|iframe|source|link(?=[^>]*rel="?(?:stylesheet|preload|icon|preconnect)))[^>]*
                          (?:src|href)="?(?:https?:)?//[^\s">]+""",
    flags=re.VERBOSE,
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand outside docs/, with their links as seen from docs/."""
    root = Path(config.config_file_path).parent
    for source, target in _TOP_LEVEL.items():
        text = (root / source).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, target, content=text))
    return files


def on_page_markdown(markdown: str, config: MkDocsConfig, **_: object) -> str:
    """Replace links to example programs by their code, and hyperparameter comments by tables."""
    docs = Path(config.docs_dir)

    def show(link: re.Match[str]) -> str:
        path = link.group("path")
        return f'```python title="docs/{path}"\n{(docs / path).read_text(encoding="utf-8")}```'

    return _HYPERPARAMETERS.sub(_tabulate, _EXAMPLE.sub(show, markdown))


def _tabulate(line: re.Match[str]) -> str:
    """Describe the fields of a loss: its own first, then those that it shares with others."""
    settings = LOSS_SETTINGS[line.group("loss")]
    fields = settings.model_json_schema()["properties"]
    own = [name for name in fields if name in vars(settings)["__annotations__"]]
    rows = [
        f"| `{name}` | {_describe_values(fields[name])} | `{fields[name]['default']}` | {fields[name]['description']} |"
        for name in [*own, *(name for name in fields if name not in own)]
        if name != "name"
    ]
    return "\n".join(["| hyperparameter | values | default | meaning |", "|---|---|---|---|", *rows])


def _describe_values(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_describe_values(choice) for choice in field["anyOf"])
    if "enum" in field or "const" in field:
        return ", ".join(f"`{choice}`" for choice in field.get("enum", [field.get("const")]))
    if field["type"] in ("number", "integer"):
        low = f"{field['minimum']} ≤ " if "minimum" in field else ""
        low = f"{field['exclusiveMinimum']} < " if "exclusiveMinimum" in field else low
        high = f" ≤ {field['maximum']}" if "maximum" in field else ""
        high = f" < {field['exclusiveMaximum']}" if "exclusiveMaximum" in field else high
        return f"{low}{field['type']}{high}"
    return {"null": "`None`", "boolean": "`True`, `False`"}.get(field["type"], field["type"])


def on_page_content(content: str, **_: object) -> str:
    """Replace the equations of a page's HTML by MathML, and the roles of its cross references by links."""
    content = _EQUATION.sub(_render_equation, content)
    return _REFERENCE.sub(lambda reference: _render_reference(reference, content), content)


def _render_reference(reference: re.Match[str], content: str) -> str:
    target = reference.group("target")
    shown = f"<code>{target.rpartition('.')[2] if reference.group('short') else target}</code>"
    anchors = re.findall(rf'id="((?:[\w.]+\.)?{re.escape(target)})"', content)
    return f'<a href="#{anchors[0]}">{shown}</a>' if anchors else shown


def _render_equation(equation: re.Match[str]) -> str:
    inline, block = equation.group("inline"), equation.group("block")
    if inline is not None:
        return _convert(inline, "inline")
    return f'<div class="equation">{_convert(block, "block")}</div>'


def _convert(equation: str, display: str) -> str:
    """Convert LaTeX to MathML, with the thin space between a function's name and what it is applied to."""
    mathml = convert(html.unescape(equation), display=display)
    return re.sub(r"(<mi>(?:cos|exp|log)</mi>)(?!<mo)", r'\1<mspace width="0.167em" />', mathml)


def on_post_build(config: MkDocsConfig, **_: object) -> None:
    """Warn about pages that would load something from another host; a warning ends a strict build."""
    for page in sorted(Path(config.site_dir).rglob("*.html")):
        for request in _REQUEST.findall(page.read_text(encoding="utf-8")):
            _log.warning("%s would load from another host: %s", page.name, request)
