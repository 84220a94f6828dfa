"""`penchant cache`: where converted models, reference log-probs and indexes lie, how big they are, and how to be rid of
them. It looks into penchant's own cache folder only."""

from __future__ import annotations

import argparse
from pathlib import Path

from penchant.errors import Refusal, nearest
from penchant.files import LOCKS, cache_folder, remove
from penchant.words import plain

SUMMARY = "show where caches are and how big; `cache clear` removes them"

USAGE = "penchant cache [show | clear [PART]]"

EXAMPLES = """\
examples:
  penchant cache
  penchant cache clear
  PENCHANT_CACHE=/data/cache penchant cache

Everything in the cache can be made again; runs, models you saved and the hub's own cache are not in it."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", default="show", metavar="show | clear", help="what to do (default: show)")
    parser.add_argument("part", nargs="?", metavar="PART", help="clear only this part, as `penchant cache` names it")


def run(arguments: argparse.Namespace) -> int:
    if arguments.action not in ("show", "clear"):
        raise Refusal(f"`penchant cache` shows or clears; {nearest(arguments.action, ('show', 'clear'))}")
    folder = cache_folder()
    # locks are no cache: a run whose lock is taken from under it would no longer keep others out of its folder
    inside = [part for part in sorted(folder.iterdir()) if part.name != LOCKS] if folder.is_dir() else []
    parts = {part.name: size(part) for part in inside}
    if arguments.part is not None and arguments.part not in parts:
        raise Refusal(f"the cache has no part {plain(arguments.part, 60)!r}; {nearest(arguments.part, parts)}")
    chosen = {name: size for name, size in parts.items() if arguments.part in (None, name)}
    print(f"{plain(folder)}  {written(sum(chosen.values()))}")
    for name, held in chosen.items():
        print(f"  {plain(name, 60):<32} {written(held):>10}")
    if not parts:
        print("  nothing is cached.")
    elif arguments.action == "clear":
        for name in chosen:
            remove(folder / name)
        print("  cleared.")
    return 0


def size(path: Path) -> int:
    """Bytes on disk; a link counts for itself, not for what it points to."""
    if path.is_symlink() or path.is_file():
        return path.lstat().st_size
    return sum(file.lstat().st_size for file in path.rglob("*") if file.is_symlink() or file.is_file())


def written(count: int) -> str:
    """A number of bytes as people read it."""
    amount = float(count)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"
