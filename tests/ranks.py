"""One rank of the test that two ranks equal one. Run by torchrun; it writes gradients, states and losses of single steps."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from accelerate import Accelerator

from architectures import SIZE, TOKENIZER
from penchant.domains.base import Encoded
from penchant.domains.paths import ScoringPath
from penchant.domains.policy import TextPolicy
from penchant.engine.step import Material, Step
from penchant.objectives import DPO, KTO, NLL, BetaDPO, Consensus, Pairs, SimPO
from penchant.objectives.base import kinds_of, zeros
from test_engine import FP32, Sorted, material
from test_tree import DOMAIN as TEXT
from test_tree import rows as text_rows
from tiny import tiny_llama
from toy import Numbers, Table, rows

torch.set_num_threads(1)
accelerator = Accelerator(cpu=True)
out = {}
for objective in (
    DPO() + 0.3 * NLL(reduction="token"),
    KTO(),
    Sorted(),
    Consensus(DPO()) + 0.1 * NLL(),
    BetaDPO(filter=0.3),
):
    encoded = rows(7, kinds_of(objective)[0])
    for budget in (15, 10_000):  # 10,000: one micro-batch, so that the second rank has none
        table = Table()
        policy = accelerator.prepare(table) if accelerator.num_processes > 1 else table
        step = Step(
            policy,
            Numbers(),
            objective,
            torch.optim.SGD(table.parameters(), lr=0.1),
            accelerator,
            FP32,
            tokens=budget,
            clip=1e9,
        )
        outcome = step(material(encoded, objective), list(range(7)), zeros(objective, {"annotator": 3}))
        name = f"{objective!r} {budget}"
        out[name] = [*table.table.detach().flatten().tolist(), outcome.loss, outcome.grad_norm]
        out[f"{name} state"] = [v for x in outcome.state.values() for v in x.flatten().tolist()]
        out[f"{name} metrics"] = [v for _, v in sorted(outcome.metrics.items())]

some = text_rows(*[(3 + 5 * i % 11, (2 + 3 * i % 7, 1 + 5 * i % 9)) for i in range(7)])
pairs = Encoded(Pairs, some.contexts, some.responses, some.numbers)
for path in ("tree", "packed", "padded"):
    text = TextPolicy(tiny_llama(SIZE), TOKENIZER)
    text.follow(ScoringPath(path, "hidden"))
    wrapped = accelerator.prepare(text) if accelerator.num_processes > 1 else text
    optimiser = torch.optim.SGD(text.parameters(), lr=0.1)
    step = Step(wrapped, TEXT, SimPO(), optimiser, accelerator, FP32, tokens=40, clip=1e9)
    outcome = step(Material(pairs), list(range(7)), {})
    moved = torch.cat([p.detach().flatten() for p in text.parameters()])
    out[path] = [*moved[::97].tolist(), outcome.loss, outcome.grad_norm]
if accelerator.is_main_process:
    Path(sys.argv[1]).write_text(json.dumps(out))
accelerator.wait_for_everyone()  # gloo aborts in a process whose peer has gone
if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()
os._exit(0)  # what was asked is written; gloo's threads now and then abort an interpreter that is being taken down
