"""A part of the page that one instrument fills: a title, what to know, tables of words, charts. It holds what is shown and
computes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from penchant.report.charts import Chart


@dataclass(frozen=True)
class Table:
    """Rows of text; the first cell of each names it."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    notes: tuple[str, ...] = ()
    """Under the name of each row, what it is; none, or one for each."""


@dataclass(frozen=True)
class Section:
    """One part of the page."""

    id: str
    """Its anchor: small letters and hyphens, never from data."""
    title: str
    lead: str
    said: tuple[str, ...] = ()
    """Sentences under the lead, one to a paragraph."""
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
