"""The cost of moving one next-token distribution onto another, and its gradient.

The teacher's distribution p and the student's q lie on different vocabularies, and C says what
it costs to move mass from one token to another, between 0 and 1. The value of a row is

    W(p, q) = min over P of sum_ij P_ij C_ij,     P >= 0 with row sums p and column sums q.

Its gradient in q is the optimal dual potential of q, up to a constant (envelope theorem).

Each side is cut to the tokens that weigh most; all others are one further point, "the rest".
It is moved onto a token of the other side at cost 1/2, and onto the other rest at no cost. With
d_p and d_q the mass of both rests, the value W~ of the smaller problem satisfies

    |W - W~| <= (d_p + d_q) / 2.

Proof. Adding up what a plan moves from and to the tokens of a rest gives a plan of the smaller
problem; splitting it in proportion leads back. So it is enough to compare the costs of the
same plan. Moves between tokens that were kept cost the same. Moves between a token and a rest
are counted at 1/2 and truly cost between 0 and 1: off by at most 1/2. Moves between both
rests, of mass m, are off by at most 1. The former have mass d_p + d_q - 2m; together that is
at most (d_p + d_q - 2m) / 2 + m. The entropy that Sinkhorn's solver adds does not increase by
adding up and stays the same by splitting, so that the bound holds for its minimum, too; it
does not for what the solver has when it stops early.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import ot
import torch
from numpy.typing import NDArray
from torch import Tensor

from kd.errors import LossError
from kd.losses.options import require_known
from kd.losses.teacher import Teacher, TopKRows

Costs = Callable[[Tensor, Tensor], Tensor]
"""Costs [N, B, A], between 0 and 1, of the teacher's ids [N, B] and the student's [N, A]."""

Floats = NDArray[np.float64]

REST = 0.5  # cost between a token and the other side's rest
ENTRIES = 2**18  # of the costs that are held at once
PIVOTS = 10**8  # the network simplex ends long before
ITERATIONS = 1000  # of Sinkhorn's algorithm, at most
TOLERANCE = 1e-7  # of its plan's row sums


@dataclass(frozen=True)
class Solver:
    """How the transport problem is made smaller, and solved.

    Raises:
        LossError: an option with a value that is not defined.
    """

    support: int  # tokens that are kept on each side; 0 for all
    solver: str  # one of `SOLVERS`
    regularisation: float  # weight of the entropy, for Sinkhorn's algorithm

    def __post_init__(self) -> None:
        require_known("solver", self.solver, SOLVERS)
        if self.support < 0:
            raise LossError(f"support is {self.support}, but must be 0 (all tokens) or more.")
        if self.regularisation <= 0:
            raise LossError(f"regularisation is {self.regularisation}, but must be positive.")

    def transport(self, student: Tensor, teacher: Teacher, costs: Costs) -> Tensor:
        """The transport cost of each row, [N].

        Args:
            student: logits [N, Vs].
            teacher: logits [N, Vt] or top-k rows.
            costs: what it costs to move mass between two tokens.
        """
        own, other = student_points(student, self.support), teacher_points(teacher, self.support)
        if not own.masses.isfinite().all():
            return own.masses.sum(dim=-1)  # a model that has diverged: NaN, as of other losses
        rows = max(1, ENTRIES // (own.masses.shape[1] * other.masses.shape[1]))
        parts = zip(own.split(rows), other.split(rows), strict=True)
        return torch.cat([self._solve(mine, theirs, costs) for mine, theirs in parts])

    def _solve(self, own: "Points", other: "Points", costs: Costs) -> Tensor:
        with torch.no_grad():
            # With costs in [0, 1] float64 leaves the optimum exact; sums are 1 only to float32.
            q, p = own.masses.double(), other.masses.double()
            total = q.sum(dim=-1, keepdim=True)
            between = torch.nn.functional.pad(
                costs(other.ids, own.ids).to(q), (0, 1, 0, 1), value=REST
            )
            between[:, -1, -1] = 0.0
            solve = SOLVERS[self.solver]
            q = q / total
            values, potentials = solve(p / p.sum(-1, keepdim=True), q, between, self.regularisation)
            slopes = (potentials - (q * potentials).sum(dim=-1, keepdim=True)) / total
        change = own.masses - own.masses.detach()  # 0, with a gradient
        return values.to(change) + (slopes.to(change) * change).sum(dim=-1)


@dataclass(frozen=True)
class Points:
    """Where one side's mass lies in each of N rows: at A tokens, and at the rest."""

    ids: Tensor  # [N, A] int64, likeliest first
    masses: Tensor  # [N, A + 1]; the last is the rest's, and 0 where all tokens were kept

    def split(self, rows: int) -> "list[Points]":
        """The same points, some rows at a time."""
        parts = zip(torch.split(self.ids, rows), torch.split(self.masses, rows), strict=True)
        return [Points(*part) for part in parts]


def student_points(logits: Tensor, support: int) -> Points:
    """The likeliest tokens of logits [N, V], `support` of them or all."""
    probs = logits.softmax(dim=-1)
    kept = probs.topk(min(support or probs.shape[-1], probs.shape[-1]))
    rest = probs.scatter(-1, kept.indices, 0.0).sum(dim=-1, keepdim=True)
    return Points(kept.indices, torch.cat([kept.values, rest], dim=-1))


def teacher_points(teacher: Teacher, support: int) -> Points:
    """The likeliest tokens of the teacher; what a top-k dropped belongs to the rest."""
    if not isinstance(teacher, TopKRows):
        return student_points(teacher, support)
    probs = teacher.log_probs.exp()  # in descending order
    size = min(support or probs.shape[-1], probs.shape[-1])
    rest = teacher.dropped + probs[:, size:].sum(dim=-1)
    return Points(teacher.ids[:, :size], torch.cat([probs[:, :size], rest[:, None]], dim=-1))


def solve_exactly(
    teacher: Tensor, student: Tensor, costs: Tensor, regularisation: float
) -> tuple[Tensor, Tensor]:
    """Values [N] and the student's potentials [N, A], by the network simplex algorithm.

    Where the value is 0, its least, so is the gradient, one of several subgradients there.
    """
    del regularisation
    rows = zip(*(side.cpu().numpy() for side in (teacher, student, costs)), strict=True)
    solved = [_simplex(*row) for row in rows]
    values, potentials = (
        torch.from_numpy(np.stack(found)).to(student) for found in zip(*solved, strict=True)
    )
    return values, potentials.where(values[:, None] > 1e-12, 0.0)


def _simplex(teacher: Floats, student: Floats, costs: Floats) -> tuple[np.float64, Floats]:
    value, found = ot.emd2(teacher, student, costs, numItermax=PIVOTS, log=True)
    if found["warning"] is not None:
        raise LossError(f"optimal transport of {costs.shape} points failed: {found['warning']}")
    return np.float64(value), found["v"]


def solve_by_sinkhorn(
    teacher: Tensor, student: Tensor, costs: Tensor, regularisation: float
) -> tuple[Tensor, Tensor]:
    """Values [N] and the student's potentials [N, A] of transport with entropy.

    The value is that of the dual problem, min over P of <P, C> + regularisation * KL(P || p q^T)
    once the iterations have converged and a lower bound before.
    """
    found = ot.batch.bregman_log_projection_batch(
        -costs / regularisation, teacher, student, max_iter=ITERATIONS, tol=TOLERANCE
    )
    other, own = (
        (regularisation * (scaling - masses.log())).masked_fill(masses == 0, 0.0)
        for scaling, masses in zip(found["potentials"], (teacher, student), strict=True)
    )
    return (teacher * other).sum(dim=-1) + (student * own).sum(dim=-1), own


SOLVERS = {"exact": solve_exactly, "sinkhorn": solve_by_sinkhorn}
