"""Pages of the site that are made from the code when the site is built: one per method, and the settings.
Nothing made here is kept in the repository, so it cannot grow old."""

from __future__ import annotations

import html
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from penchant.command.flags import flags, groups
from penchant.command.methods import called
from penchant.command.record import claims, golden
from penchant.engine.settings import Settings
from penchant.objectives import catalogue
from penchant.objectives.describe import Description, describe


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the made pages, and the methods to the navigation."""
    said = [describe(method) for method in catalogue().values()]
    pages = {f"methods/{one.name.lower()}.md": method_page(one) for one in said}
    for path, text in {**pages, "methods/index.md": methods_page(said), "settings.md": settings_page()}.items():
        files.append(File.generated(config, path, content=text))
    listed: Any = [{one.name: f"methods/{one.name.lower()}.md"} for one in said]
    config.nav = [
        {"Methods": [{"All": "methods/index.md"}, *listed]} if "Methods" in entry else entry for entry in config.nav or []
    ]
    return files


def methods_page(said: list[Description]) -> str:
    rows = [
        f"| [{one.name}]({one.name.lower()}.md) | {cell(one.equation)} | {' or '.join(one.data)} | "
        f"{', '.join(one.needs) or 'nothing'} |"
        for one in said
    ]
    return "\n".join(
        [
            "# Methods",
            "",
            "Each is one small file: a frozen dataclass whose fields are its hyper-parameters and whose body is the",
            "equation.",
            "They add up (`DPO(beta=0.1) + 0.2 * NLL()`), are written the same way in Python, in a recipe and in the",
            "shell,",
            "and all pass one suite of laws. This page is made from the classes.",
            "",
            "| method | loss | takes | needs |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def method_page(one: Description) -> str:
    fields = [
        f"| `{field.name}` | {'' if field.default is None else f'`{field.default!r}`'} | "
        f"{cell(' in '.join(filter(None, (field.type, field.allowed))))} | {cell(field.doc)} |"
        for field in one.fields
    ]
    table = ["| field | default | allowed | what it does |", "| --- | --- | --- | --- |", *fields] if fields else ["None."]
    paper = f"arXiv {one.arxiv}"
    source = cell(one.source).replace(paper, f"[{paper}](https://arxiv.org/abs/{one.arxiv})" if one.arxiv else paper)
    broken = [f"- *{cell(law)}*: {cell(why)}" for law, why in one.breaks.items()]
    needs = ", ".join(f"`{need}`" for need in one.needs) or "nothing"
    return "\n".join(
        [
            f"# {one.name}",
            "",
            f'<div class="equation">{html.escape(one.equation)}</div>',
            "",
            source,
            *(["", f"Also known as {cell(', '.join(one.known_as))}."] if one.known_as else []),
            "",
            one.doc,
            "",
            "## Fields",
            "",
            *table,
            "",
            "## What it reads",
            "",
            f"Data: {' or '.join(one.data)}, one loss value per {one.unit}. Beside log π it needs: {needs}.",
            "",
            "## Use",
            "",
            "```sh",
            f'penchant align --model smollm2 --data data.jsonl --objective "{called(one)}" '
            f"--output runs/{one.name.lower()}",
            "```",
            "",
            *(["## Laws it cannot keep", "", *broken, ""] if broken else []),
            *behind(one),
            "## The whole file",
            "",
            f'```python title="objectives/{one.file.name}"',
            one.file.read_text(encoding="utf-8").rstrip(),
            "```",
            "",
        ]
    )


def behind(one: Description) -> list[str]:
    """The numbers a method is tested against, and what it was tried on."""
    lines = ["## Golden numbers", ""]
    lines += ["| case | objective and responses | loss | gradient | who computed it |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {cell(case.case)} | `{case.objective}`: {cell(case.inputs)} | {', '.join(f'{x:.6g}' for x in case.loss)} | "
        f"{cell(case.grad)} | {cell(case.source)} |"
        for case in golden(one.name)
    ]
    tried = claims(one.name)
    if tried:
        lines += ["", "## Tried", "", "| claim | our run | result | verdict |", "| --- | --- | --- | --- |"]
        lines += [f"| {x.claim} | {x.run} | {x.result} | {x.verdict} |" for x in tried]
    return [*lines, ""]


def settings_page() -> str:
    known = flags(Settings)
    lines = [
        "# Settings",
        "",
        "How a run is carried out. The same names are keyword arguments of `penchant.align`, keys of a recipe file and,",
        "with dashes, flags of `penchant align`. This page is made from the class `penchant.engine.settings.Settings`.",
        "",
    ]
    for heading, names in groups(Settings).items():
        lines += [f"## {heading}", "", "| setting | default | allowed | what it does |", "| --- | --- | --- | --- |"]
        for flag in (known[name] for name in names):
            allowed = flag.allowed.strip("[]") or ("yes or no" if flag.boolean else "text")
            lines.append(f"| `{flag.name}` | {flag.default} | {cell(allowed)} | {cell(flag.said)} |")
        lines.append("")
    return "\n".join(lines)


def cell(text: str) -> str:
    """Text that Markdown leaves as it is, on one line, also inside a table."""
    said = html.escape(" ".join(text.split()), quote=False)
    for mark in ("\\", "|", "*", "_", "`"):
        said = said.replace(mark, "\\" + mark)
    return said
