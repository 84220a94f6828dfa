"""`make bench`: every row in a process of its own, its figures kept as soon as they are there, then the table, here and in
the documents. What a row measures stands in the row's own file."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from figures import Figure, table

HERE = Path(__file__).resolve().parent
ROWS: dict[str, str] = {
    "startup": "startup:measure",
    "step": "steps:autocast",
    "fp32": "steps:float32",
    "epoch": "epochs:measure",
    "algorithm": "paths:algorithm",
    "lists": "paths:lists",
    "memory": "peaks:measure",
    "peak": "steps:peak",
    "trunk": "plugged:trunk",
    "sampling": "plugged:sampling",
    "exact": "exactness:measure",
    "growth": "growth:measure",
}
"""What is measured, in the order of the table: a function of the rounds that gives figures."""
VERSIONS = ("torch", "transformers", "accelerate", "peft", "datasets", "trl")


def measured(row: str, rounds: int) -> list[Figure]:
    module, _, name = ROWS[row].partition(":")
    act: Callable[[int], list[Figure]] = getattr(importlib.import_module(module), name)
    return act(rounds)


def machine() -> dict[str, Any]:
    """What the figures depend on, and nothing that says whose machine it is."""
    found = Path("/proc/cpuinfo")
    lines = found.read_text(encoding="utf-8").splitlines() if found.exists() else []
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    flags = {"avx2", "avx512f", "avx512_bf16", "amx_bf16"} & set(said.get("flags", "").split())
    return {
        "processor": said.get("model name", platform.machine()),
        "family and model": f"{said.get('cpu family', '')}/{said.get('model', '')}",
        "instructions": sorted(flags),
        "cores": os.cpu_count(),
        "threads": 1,
        "memory GiB": round(pages / 2**30),
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="all", help=f"all, missing, or some of {','.join(ROWS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.row is not None:  # the process of one row
        figures = measured(given.row, given.rounds)
        Path(os.environ["BENCH_INTO"]).write_text(json.dumps([f.to_json() for f in figures]), encoding="utf-8")
        return

    from documents import kept, publish, results_file

    into = results_file()
    held = kept(into)
    names = list(ROWS) if given.rows == "all" else given.rows.split(",")
    if given.rows == "missing":
        names = [row for row in ROWS if row not in held["rows"]]
    for unknown in set(names) - set(ROWS):
        sys.exit(f"there is no row {unknown!r}; valid are {', '.join(ROWS)}.")
    failed = []
    for row in names:
        print(f"{row}:", flush=True)
        started = time.perf_counter()
        draft = into.with_suffix(f".{row}.draft")
        again = [sys.executable, str(HERE / "bench.py"), "--row", row, "--rounds", str(given.rounds)]
        code = subprocess.run(again, env={**os.environ, "BENCH_INTO": str(draft)}).returncode
        if code:
            failed.append(row)
            print(f"{row} failed (exit code {code}); the other rows go on.", flush=True)
            continue
        made = json.loads(draft.read_text(encoding="utf-8"))
        draft.unlink()
        took = round(time.perf_counter() - started)
        held["rows"][row] = {"measured": date.today().isoformat(), "wall seconds": took, "figures": made}
        held["rows"] = {name: held["rows"][name] for name in ROWS if name in held["rows"]}
        held |= {"machine": machine(), "versions": versions()}
        into.write_text(json.dumps(held, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{row}: {took} s\n{table({row: held['rows'][row]})}\n", flush=True)
    print(table(held["rows"]))
    publish(held)
    missing = [row for row in ROWS if row not in held["rows"]]
    if missing:
        print(f"no figures yet of {', '.join(missing)}: make bench ROWS=missing")
    if failed:
        sys.exit(f"these rows failed and keep what was measured before: {', '.join(failed)}.")


if __name__ == "__main__":
    main()
