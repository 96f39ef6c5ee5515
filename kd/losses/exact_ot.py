"""Optimal transport between next-token distributions, solved, under three costs."""

from torch import Tensor, nn

from kd.losses.declaration import loss
from kd.losses.setup import Embeddings, Vocabularies
from kd.losses.teacher import Teacher
from kd.losses.transport import Solver
from kd.losses.transport_costs import EditDistanceCosts, EmbeddingCosts, rank_costs


@loss(
    "ot_uniform",
    family="optimal transport",
    same_vocabulary=False,
    truncation="certified",
    formula=r"\min_{P \in U(p, q)} \sum_{r, s} P_{rs} [r \neq s]",
    source="Boizard et al., arXiv 2402.12030, sec. 3.3; solver: Flamary et al., JMLR 22 (2021)",
    choices={"solver": ("exact", "sinkhorn")},
    ranges={"support": "[0, inf)", "regularisation": "(0, inf)"},
    bound="kd.losses.bounds.transport",
    unbounded_when={"solver": ("sinkhorn",)},
    reads_ids=False,
)
def ot_uniform(
    student: Tensor,
    teacher: Teacher,
    *,
    support: int = 64,
    solver: str = "exact",
    regularisation: float = 0.1,
) -> Tensor:
    """Transport cost if all moves between tokens of different rank cost the same, 1.

    Tokens are identified by rank, the likeliest with the likeliest. The minimum is then known:
    twice it is ULD, exactly so with `support=0`. `uld` is the same loss times 2, in closed form
    and many times faster; this one is there to be compared with the other costs under the same
    solver. A cost of 1 without exception, even between equal ranks, would always cost 1.

    Options and top-k teacher as for `ot_edit_distance`.
    """
    return Solver(support, solver, regularisation).transport(student, teacher, rank_costs)


@loss(
    "ot_edit_distance",
    family="optimal transport",
    same_vocabulary=False,
    truncation="certified",
    formula=r"\min_{P \in U(p, q)} \sum_{i, j} P_{ij} "
    r"\frac{\mathrm{lev}(t_i, s_j)}{\max(|t_i|, |s_j|)}",
    source="Boizard et al., arXiv 2402.12030v3, comparison of transport costs; "
    "solver: Flamary et al., JMLR 22 (2021)",
    choices={"solver": ("exact", "sinkhorn")},
    ranges={"support": "[0, inf)", "regularisation": "(0, inf)"},
    bound="kd.losses.bounds.transport",
    unbounded_when={"solver": ("sinkhorn",)},
)
class EditDistanceTransport(nn.Module):
    """Transport cost if moves between tokens cost the edit distance of their texts.

    The cost is between 0 (same text) and 1: see `EditDistanceCosts`. Unlike ULD it knows which
    token is which. The value is between 0 and 1; with `support: 0` it is 0 exactly if both
    distributions over texts agree (a smaller support may keep different tokens on both sides).
    Its gradient there is 0, one of several subgradients: like an absolute value, transport has
    a kink at its minimum.

    Options: `support` tokens are kept on each side, the likeliest (0: all of them), and what is
    left is one more point, at cost 1/2 from every token of the other side and 0 from what is
    left there. That changes the value by at most half the mass left on both sides together.
    `solver: sinkhorn` adds `regularisation` * KL(P || p q^T) to the transport cost of a plan P:
    smooth, batched, on the logits' device, larger by at most `regularisation` times the
    smaller entropy, and not 0 for identical models.

    Top-k teacher: the dropped tokens belong to what is left, so that with the exact solver

        |W - W~| <= dropped / 2.

    Proof: see `kd.losses.transport`; of a dense and a stored teacher the same tokens are kept
    but for those that were dropped. Sinkhorn's algorithm stops early, after 1000 iterations at
    most: its value on stored logits is declared to have no bound.

    Complexity: a row with M tokens on each side takes O(M^2) memory and, in the exact solver
    (network simplex, one core), about O(M^3) time: 0.3 to 1.5 ms for M = 64, 0.3 to 2 s for
    M = 1000. Whole vocabularies of tens of thousands are out of reach. Sinkhorn's algorithm
    takes O(M^2) for each of up to 1000 iterations; on a CPU that is slower, 4 to 25 ms for
    M = 64.
    """

    def __init__(
        self,
        vocabularies: Vocabularies,
        *,
        support: int = 64,
        solver: str = "exact",
        regularisation: float = 0.1,
    ) -> None:
        super().__init__()
        self._costs = EditDistanceCosts(vocabularies)
        self._solver = Solver(support, solver, regularisation)

    def forward(self, student: Tensor, teacher: Teacher) -> Tensor:
        """Transport cost of each row, [N]."""
        return self._solver.transport(student, teacher, self._costs)


@loss(
    "ot_embedding",
    family="optimal transport",
    same_vocabulary=False,
    truncation="certified",
    formula=r"\min_{P \in U(p, q)} \sum_{i, j} P_{ij} \frac{\|e_i - e_j\|_2}{R_p + R_q}",
    source="Boizard et al., arXiv 2402.12030v3, comparison of transport costs; "
    "solver: Flamary et al., JMLR 22 (2021)",
    choices={"solver": ("exact", "sinkhorn")},
    ranges={"support": "[0, inf)", "regularisation": "(0, inf)"},
    bound="kd.losses.bounds.transport",
    unbounded_when={"solver": ("sinkhorn",)},
)
class EmbeddingTransport(nn.Module):
    """Transport cost if moves between tokens cost the distance of their embeddings.

    The distance is Euclidean, in one space for both vocabularies, over the largest that is
    possible, R_p + R_q, so that costs are between 0 and 1: see `EmbeddingCosts`. Otherwise as
    `ot_edit_distance`, with the same options, bound and complexity.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        *,
        support: int = 64,
        solver: str = "exact",
        regularisation: float = 0.1,
    ) -> None:
        super().__init__()
        self._costs = EmbeddingCosts(embeddings)
        self._solver = Solver(support, solver, regularisation)

    def forward(self, student: Tensor, teacher: Teacher) -> Tensor:
        """Transport cost of each row, [N]."""
        return self._solver.transport(student, teacher, self._costs)
