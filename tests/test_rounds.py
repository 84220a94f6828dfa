"""What a round of several processes promises: each samples its share, one of them writes, and all learn from what one process
alone would have made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from test_server import run

RANK = """
import os, sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from pathlib import Path
from test_server import run
from penchant.domains.text import sampling
asked = []
generate = sampling.generate
import penchant.engine.drawing as drawing
drawing.generate = lambda policy, prompts, **how: asked.append(list(how["numbers"])) or generate(policy, prompts, **how)
run(Path(sys.argv[2]), Path(sys.argv[3]), rounds=1)
Path(sys.argv[4] + os.environ.get("RANK", "0")).write_text(repr(asked))
os._exit(0)  # see tests/ranks.py
"""


def test_two_processes_sample_a_share_each_and_make_the_round_that_one_makes(tmp_path: Path, tiny_folder: Path):
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path), "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=127.0.0.1:0", str(script), str(Path(__file__).parent), str(tmp_path / "two")]
    done = subprocess.run(
        [*command, str(tiny_folder), str(tmp_path / "share-")], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert [(tmp_path / f"share-{rank}").read_text() for rank in (0, 1)] == ["[[0, 2, 4]]", "[[1, 3]]"]
    run(tmp_path / "one", tiny_folder, rounds=1)
    files = (tmp_path / name / "rounds" / "round-0001.jsonl" for name in ("one", "two"))
    one, two = ([json.loads(line) for line in file.read_text().splitlines()] for file in files)
    assert one[1:] == two[1:]  # the first line tells how long it took
    assert one[0]["agreement"]["tokens"] == two[0]["agreement"]["tokens"] > 10
