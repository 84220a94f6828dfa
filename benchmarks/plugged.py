"""Rows whose measuring gives raw numbers, as figures. Nothing is measured here."""

from __future__ import annotations

from dataclasses import replace

from figures import Figure, ratio


def trunk(rounds: int) -> list[Figure]:
    """What training the upper layers over a frozen trunk saves, once the trunk's pass is kept."""
    import trunk as measured

    found = measured.measure(rounds)
    what = f"epoch on {found['pairs']} real pairs, the upper {found['top']} layers train"
    return [
        Figure(
            f"{what}, the trunk's pass kept, against training all weights",
            found["all_over_top"],
            at_least=4,
            stretch=7,
            ours=found["epoch_top_cpu_seconds"],
            peer=found["epoch_all_cpu_seconds"],
            low=found["all_over_top_low"],
            high=found["all_over_top_high"],
            rounds=rounds,
            note="both sides are penchant",
        ),
        Figure(
            f"{what}: the trunk's one pass, the reference's log-probs in it",
            found["reference_and_caching_cpu_seconds"],
            "CPU s",
            peer=found["reference_all_cpu_seconds"],
            note="beside it the reference pass of a model that trains whole",
        ),
        Figure(
            f"{what}: peak memory over training all weights",
            found["peak_top_gib"] / found["peak_all_gib"],
            ours=found["peak_top_gib"],
            peer=found["peak_all_gib"],
            sides="GiB",
        ),
    ]


def sampling(rounds: int) -> list[Figure]:
    """Samples that share their prompt's keys and values, against `transformers.generate` at its fastest."""
    import sampling as measured

    found = measured.measure(rounds)
    assert found["greedy_equal"], "greedy answers differ from those of generate"
    what = f"sampling, K = {found['answers']} for each of {len(found['prompts'])} prompts"
    note = f"{found['tokens']} tokens each; prompts of {min(found['prompts'])} to {max(found['prompts'])}"
    seconds = found["cpu_seconds"]
    return [
        replace(ratio(seconds, peer, ours, f"{what}, {name}, against `generate`", **wanted), note=note)
        for peer, ours, name, wanted in (
            ("generate, bf16 weights", "ours, bf16", "bf16", {"at_least": 1.4, "stretch": 2.0}),
            ("generate, float32", "ours, float32", "float32", {}),
        )
    ]
