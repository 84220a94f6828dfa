"""Single steps of every objective, in micro-batches of a given size and over the processes there are: what the tests of
accumulation and of ranks compare. Run by a launcher it is one rank of several; imported, one process."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import typing
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from architectures import SIZE as VOCABULARY
from architectures import TOKENIZER
from examples import LEVELS, anchors_of, columns_of
from penchant.domains.base import Cost, Encoded
from penchant.domains.sharding import whole
from penchant.domains.text.domain import Text
from penchant.domains.text.models import LoRA, _adapted
from penchant.domains.text.paths import ScoringPath
from penchant.domains.text.policy import TextPolicy
from penchant.domains.text.reward_head import RewardHead
from penchant.engine.batching import strangers
from penchant.engine.loop import train
from penchant.engine.precision import Precision
from penchant.engine.step import Material, Step
from penchant.objectives import DPO, IPO, NLL, BradleyTerry, Consensus, Labelled, Objective, Pairs, catalogue
from penchant.objectives.base import kinds_of, weighs, zeros
from penchant.objectives.scored import Grouped
from penchant.references.store import Store, fill
from tiny import tiny_llama
from toy import SIZE, STEPS, Numbers, Table

ROWS = 8
FP32 = Precision("fp32", "highest", {})
Case = tuple[str, Objective, Any]


def every() -> Iterator[Case]:
    """Every objective on every kind of rows it takes, and a sum whose terms count differently."""
    for name, cls in catalogue().items():
        inner = {f.name: IPO() for f in dataclasses.fields(typing.cast(Any, cls)) if f.default is dataclasses.MISSING}
        objective = cls(**inner)
        for kind in kinds_of(objective):
            yield f"{name} on {kind.__name__}", objective, kind
    yield "a sum on Pairs", DPO() + 0.3 * NLL(reduction="token"), Pairs
    yield "a reward model of several people on Pairs", Consensus(BradleyTerry()), Pairs


def families() -> Iterator[Case]:
    """One objective for everything that can differ below it: rows, head, state, coupling, values, anchors, mismatched responses."""
    seen = set()
    for name, objective, kind in every():
        needs = objective.needs
        what = (
            kind,
            needs.head,
            objective.remembers,
            objective.couples,
            needs.scoring,
            needs.mismatched,
            "annotator" in needs.columns,
        )
        if what not in seen:
            seen.add(what)
            yield name, objective, kind


def made(objective: Objective, kind: Any, size: int, prompt: int) -> Encoded:
    """Rows of unequal lengths with all that the objective reads of them. size: different tokens. prompt: its longest."""
    make = torch.Generator().manual_seed(3)
    draw = lambda low, top, n=(): torch.randint(low, top, n, generator=make)  # noqa: E731
    say = lambda most: draw(1, size, (int(draw(1, most + 1)),))  # noqa: E731
    grouped = issubclass(kind, Grouped)
    counts = [2 + i % 3 if grouped else 2 if kind is Pairs else 1 for i in range(ROWS)]
    responses = tuple(tuple(say(STEPS) for _ in range(n)) for n in counts)
    columns = {name: x.float() if x.is_floating_point() else x for name, x in columns_of(objective, ROWS, make).items()}
    if kind is Labelled:
        columns["label"] = torch.tensor([i % 3 != 0 for i in range(ROWS)])
    if grouped:
        gain = torch.rand(sum(counts), generator=make)
        best = torch.tensor([k == 0 for n in counts for k in range(n)])
        gain = torch.where(best, 1.0, gain)
        columns |= {"gain": gain} if kind.__name__ == "Lists" else {"reward": gain, "advantage": gain - gain.mean()}
    weights = tuple(tuple(0.5 + torch.rand(len(y), generator=make) for y in ys) for ys in responses)
    contexts = tuple(say(prompt) for _ in range(ROWS))
    numbers = tuple(range(1, ROWS + 1))
    names = ("ada", "ben", "cho")[: LEVELS["annotator"]]
    return Encoded(kind, contexts, responses, numbers, columns, names, weights=weights if weighs(objective) else None)


def counted(domain: Any) -> Any:
    """The domain, but each row costs 1: a budget is a number of rows."""
    domain.cost = lambda policy, encoded: Cost([1] * len(encoded), padded=False)
    return domain


def material(domain: Any, encoded: Encoded, objective: Objective, others: Sequence[nn.Module]) -> Material:
    """The rows, each anchor another model's log-probs."""
    names = [name for need in sorted(objective.needs.anchors) for name in anchors_of(need)]

    def anchors(of: Encoded) -> dict[str, Any]:
        with torch.no_grad():
            said = {name: domain.score(other, of).logp for name, other in zip(names, others, strict=False)}
        return {name: lambda rows, x=x: x[of.places(rows), : max(of.select(rows).lengths)] for name, x in said.items()}

    if not objective.needs.mismatched:
        return Material(encoded, anchors(encoded))
    mixed = domain.recombine(encoded, range(ROWS), strangers([c.numpy().tobytes() for c in encoded.contexts], 0))
    return Material(encoded, anchors(encoded), mixed, anchors(mixed))


def stepped(
    accelerator: Accelerator,
    policy: nn.Module,
    wrapped: nn.Module,
    domain: Any,
    objective: Objective,
    some: Material,
    rows: int,
) -> dict[str, Tensor]:
    """Gradient, state, loss and norm of one step in micro-batches of so many rows. Every rank's own gradient is the first's."""
    optimiser = torch.optim.SGD([p for p in policy.parameters() if p.requires_grad], lr=0.0)
    step = Step(wrapped, domain, objective, optimiser, accelerator, FP32, tokens=rows, clip=1e9)
    outcome = step(some, list(range(ROWS)), zeros(objective, LEVELS))
    gradient = torch.cat([whole(p.grad).flatten() for p in step.parameters if p.grad is not None])
    if accelerator.num_processes > 1:
        theirs = gradient.clone()
        torch.distributed.broadcast(theirs, 0)
        assert torch.equal(theirs, gradient), f"{objective!r}: the gradients differ between ranks"
    numbers = {"loss": torch.tensor(outcome.loss), "norm": torch.tensor(outcome.grad_norm)}
    metrics = {"metrics": torch.tensor([v for _, v in sorted(outcome.metrics.items())])}
    return {"gradient": gradient, **numbers, **metrics, **{f"state {k}": x for k, x in outcome.state.items()}}


def on_numbers(accelerator: Accelerator, cases: Sequence[Case], sizes: Sequence[int]) -> dict[str, Tensor]:
    """Steps of a table of logits, by case, rows in a micro-batch and what was found."""
    out, domain, others = {}, counted(Numbers()), [Table(seed=seed) for seed in (9, 10, 11)]
    for name, objective, kind in cases:
        some = material(domain, made(objective, kind, SIZE, 1), objective, others)
        for size in sizes:
            policy = Table()
            wrapped = accelerator.prepare(policy) if accelerator.num_processes > 1 else policy
            found = stepped(accelerator, policy, wrapped, domain, objective, some, size)
            out |= {f"{name}/{size}/{what}": x for what, x in found.items()}
    return out


def language_model(
    seed: int = 0, lora: bool = False, path: Any = "tree", tied: bool = True, head: str = "lm"
) -> TextPolicy:
    """A tiny policy; every layer checkpoints its activations, as a large one's would. A head for scores is not zeros here, so that
    the body has a gradient."""
    model = tiny_llama(VOCABULARY, seed, tie_word_embeddings=tied)
    weight = torch.randn(1, model.config.hidden_size, generator=torch.Generator().manual_seed(seed))
    reward = RewardHead(model, weight) if head == "reward" else None
    if lora:
        torch.manual_seed(seed)
        with warnings.catch_warnings():  # as `load` does
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            tuned, reference = _adapted(model, LoRA(4, 8), None, None)
        for i, p in enumerate(p for p in tuned.parameters() if p.requires_grad):
            torch.nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(i))
        policy = TextPolicy(tuned, TOKENIZER, reference, reward=reward)
    else:
        policy = TextPolicy(model, TOKENIZER, reward=reward)
    policy.follow(ScoringPath(path, "hidden"))
    return policy


def on_text(
    accelerator: Accelerator, cases: Sequence[Case], sizes: Sequence[int], split: bool = False
) -> dict[str, Tensor]:
    """The same of a language model. split: its parameters over the ranks (FSDP2), not copied to each (DDP)."""
    out, domain = {}, counted(Text(TOKENIZER, eos=[2]))
    cases = [case for case in cases if "error" not in case[1].needs.values]  # nothing is denoised in a text
    mesh = init_device_mesh("cpu", (accelerator.num_processes,)) if split else None
    others = [language_model(seed) for seed in (1, 2, 3)]
    for name, objective, kind in cases:
        some = material(domain, made(objective, kind, VOCABULARY, 9), objective, others)
        lora = objective.remembers  # so that both are met
        for size in sizes:
            policy = language_model(lora=lora, head=objective.needs.head)
            assert ("reward.weight" in dict(policy.named_trainable())) == (objective.needs.head == "reward")
            held = language_model(1) if objective.needs.scoring and not lora else None
            wrapped: nn.Module = policy
            if mesh is not None:
                policy.shard(mesh)
                assert all(isinstance(p, DTensor) for p in policy.parameters())
                if held is not None:
                    held.shard(mesh)
            elif accelerator.num_processes > 1:
                wrapped = accelerator.prepare(policy)
            if held is not None:
                policy.hold(held)
            found = stepped(accelerator, policy, wrapped, domain, objective, some, size)
            if mesh is not None:
                assert all(isinstance(p.grad, DTensor) for p in policy.parameters() if p.requires_grad)
            out |= {f"{name}/{size}/{what}": x for what, x in found.items()}
    return out


def apart(accelerator: Accelerator, folder: Path) -> None:
    """A run whose ranks see different things: one has the reference's log-probs on its disk and finds each evaluation better
    than the last, the other has nothing and finds it worse, and is the only one that is interrupted. No branch on what is
    local may surround what all must do: both take the same steps, stop at the same one and go on to the same end."""
    from test_engine import make_job, rows  # here, for it needs what this file has and more

    rank, encoded = accelerator.process_index, rows(20)

    def job() -> Any:
        made = make_job(Table(), DPO(), encoded, folder, disk=folder / f"disk-{rank}", evaluate_every=1)
        made.policy = accelerator.prepare(made.bare)
        made.evaluate = lambda step: {"margin": float(step if rank == 0 else -step)}
        return made

    if rank == 0:
        own = anchors_alone(encoded, folder / f"disk-{rank}")
        assert own
    accelerator.wait_for_everyone()
    first = job()
    first.report = lambda position, *_: os.kill(os.getpid(), signal.SIGINT) if rank == 1 and position.step == 3 else None
    assert train(first) == "interrupted"
    second = job()
    assert train(second) is None
    mine = second.bare.table.detach().clone()
    torch.distributed.broadcast(mine, 0)
    assert torch.equal(mine, second.bare.table)
    assert [line["step"] for line in second.folder.history() if line["kind"] == "step"] == list(range(1, 9))


def anchors_alone(encoded: Encoded, disk: Path) -> bool:
    """One rank leaves the reference's log-probs on its own disk, as an earlier run of one process would."""
    domain, start = Numbers(), Table()
    groups = domain.cost(start, encoded).micro_batches(4096)
    store = Store(encoded.counts, encoded.lengths, encoded.keys)
    with torch.no_grad():
        fill(store, lambda some: domain.score(start, encoded.select(some)).logp, groups, folder=disk)
    return any(disk.iterdir())


def main(out: Path, long: bool) -> None:
    """What a rank does: every case, by copies and by shards."""
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    cases, some = list(every()), list(every() if long else families())
    found = {f"numbers/{k}": x for k, x in on_numbers(accelerator, cases, (8, 2)).items()}
    found |= {f"copies/{k}": x for k, x in on_text(accelerator, some, (2,)).items()}
    apart(accelerator, out.parent / "apart")
    found |= {f"shards/{k}": x for k, x in on_text(accelerator, some, (8, 2) if long else (2,), split=True).items()}
    if accelerator.is_main_process:
        save_file({k: x.clone().contiguous() for k, x in found.items()}, out)
    accelerator.wait_for_everyone()  # gloo aborts in a process whose peer has gone


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] == ["long"])
    sys.stdout.flush()
    os._exit(0)  # what was asked is written; gloo's threads now and then abort an interpreter that is being taken down
