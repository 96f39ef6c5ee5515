"""The decorator that turns a function into a loss.

A loss is one decorated function in any module of this package, say

    @loss(
        "total_variation",
        family="total variation",
        same_vocabulary=True,
        truncation="lower_bound",
        source="...",
    )
    def total_variation(student: Tensor, teacher: Teacher) -> Tensor:
        '''Half the L1 distance between both next-token distributions.'''
        log_q, log_p = common_log_probs(student, teacher)
        return 0.5 * (log_p.exp() - log_q.exp()).abs().sum(-1)

Its positional parameters are what it needs, out of the fields of
`kd.losses.rows.AlignedRows`; its keyword-only parameters are its options, each with a
default; it returns one value for each of the N aligned answer tokens. Labels, shift,
alignment, temperature and reduction are not its business (`kd.losses.distillation`).

The keywords must be literals, because `kd.losses.catalogue` reads them from the source
text: validating an experiment must not import torch.
"""

from collections.abc import Callable
from typing import Literal, TypeVar

Function = TypeVar("Function", bound=Callable[..., object])

Truncation = Literal["unaffected", "certified", "lower_bound"]
"""What becomes of the value when only the teacher's top-k is known.

`unaffected`: nothing, the teacher is not read. `certified`: the error is at most the dropped
mass. `lower_bound`: the full value is at least this one, by an amount that is not bounded.
"""


def loss(
    name: str, *, family: str, same_vocabulary: bool, truncation: Truncation, source: str
) -> Callable[[Function], Function]:
    """Declare a loss. The function itself stays as it is.

    Args:
        name: what experiments call it.
        family: the group under which `kd losses` lists it.
        same_vocabulary: whether token i must mean the same to student and teacher.
        truncation: what becomes of the value under a top-k teacher (see `Truncation`).
        source: paper and equation.
    """
    del name, family, same_vocabulary, truncation, source  # read by kd.losses.catalogue

    def unchanged(function: Function) -> Function:
        return function

    return unchanged
