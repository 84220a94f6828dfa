"""The delivery task: boards of roads, houses, sheep, coins, road blocks and mud, on which a courier looks for the goal. It makes
the boards and their processes; who prefers what is the recipe's affair.

What stands where follows Knox et al. 2022 (arXiv 2206.02231): a move earns what the cell that is entered is worth, coins and road
blocks beside the road or mud they lie on; a blocked move stays, and pays for road or mud; goal and sheep end the episode."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from penchant.control.tables import Table, of_table
from penchant.control.tabular import FiniteMDP

ROAD, GOAL, HOUSE, SHEEP, COIN, BLOCK = ".G#SCB"
CELLS = ".G#SCBm8hsco"
"""Road, goal, house, sheep, coin, road block; from `m` on the same on mud (8 a goal, h a house, s a sheep, c a coin, o a block)."""
FEATURES = ("gas", "goal", "sheep", "coin", "road block", "mud")
WORTH = torch.tensor([-1.0, 50.0, -50.0, 1.0, -1.0, -2.0], dtype=torch.float64)
"""What each is worth in the published task."""
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))
GAMMA = 0.999


def entered(cell: str) -> list[float]:
    """The features of entering a cell."""
    kind, mud = CELLS.index(cell) % 6, CELLS.index(cell) >= 6
    over = kind in (CELLS.index(GOAL), CELLS.index(SHEEP))
    ground = [float(not mud and not over), float(mud and not over)]
    return [ground[0], *(float(kind == CELLS.index(x)) for x in (GOAL, SHEEP, COIN, BLOCK)), ground[1]]


def table(board: list[str], worth: Tensor = WORTH) -> tuple[Table, Tensor]:
    """The board as a table of moves, and the features of each, [cells, 4, 6]. Cells are numbered row by row; a house can be
    left. Mud can too: the authors' environment says so, their generator of segments did not let it."""
    wide, told, out = len(board[0]), torch.zeros(len(board) * len(board[0]), 4, 6, dtype=torch.float64), {}
    for s in range(len(told)):
        row, column = divmod(s, wide)
        out[s] = {}
        for a, (down, right) in enumerate(MOVES):
            y, x = row + down, column + right
            free = 0 <= y < len(board) and 0 <= x < wide and CELLS.index(board[y][x]) % 6 != CELLS.index(HOUSE)
            if free:
                told[s, a] = torch.tensor(entered(board[y][x]), dtype=torch.float64)
            else:
                y, x, muddy = row, column, CELLS.index(board[row][column]) >= 6
                told[s, a, 5 if muddy else 0] = 1
            over = CELLS.index(board[y][x]) % 6 in (CELLS.index(GOAL), CELLS.index(SHEEP))
            out[s][a] = [(1.0, y * wide + x, float(told[s, a] @ worth), over)]
    return out, told


def process(board: list[str], gamma: float = GAMMA) -> FiniteMDP:
    """The board as a process whose rewards are linear in the six features; episodes start anywhere but in houses and at ends."""
    moves, told = table(board)
    cells = [CELLS.index(cell) % 6 for row in board for cell in row]
    open_to = torch.tensor([kind not in map(CELLS.index, (GOAL, HOUSE, SHEEP)) for kind in cells]).double()
    ends = torch.tensor([kind in map(CELLS.index, (GOAL, SHEEP)) for kind in cells])
    return replace(of_table(moves, gamma).told(told), terminal=ends, starts=open_to / open_to.sum())


def drawn(seed: int, least: int = 5, most: int = 10) -> tuple[FiniteMDP, Tensor]:
    """A random board as a process, and what its six features are worth: the published values in random order. Up to three in ten
    cells are sheep, houses, coins, road blocks and mud each, and one is the goal."""
    generator = torch.Generator().manual_seed(seed)
    high, wide = torch.randint(least, most + 1, (2,), generator=generator).tolist()
    mud = torch.rand(high * wide, generator=generator) < 0.3 * torch.rand(1, generator=generator)
    cells = [6 * int(x) for x in mud]
    order = iter(torch.randperm(high * wide, generator=generator).tolist())
    cells[next(order)] += CELLS.index(GOAL)
    for kind, share in ((SHEEP, 0.2), (HOUSE, 0.15), (COIN, 0.2), (BLOCK, 0.2)):
        for _ in range(int(share * float(torch.rand(1, generator=generator)) * high * wide)):
            cells[next(order)] += CELLS.index(kind)
    board = ["".join(CELLS[k] for k in cells[i * wide : (i + 1) * wide]) for i in range(high)]
    return process(board), WORTH[torch.randperm(6, generator=generator)]
