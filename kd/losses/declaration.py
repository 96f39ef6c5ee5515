r"""The decorator that turns a function into a loss.

A loss is one decorated function in any module of this package, say

    @loss(
        "total_variation",
        family="total variation",
        same_vocabulary=True,
        truncation="lower_bound",
        formula=r"\frac{1}{2} \sum_v |p_v - q_v|",
        source="...",
    )
    def total_variation(student: Tensor, teacher: Teacher) -> Tensor:
        '''Half the L1 distance between both next-token distributions.'''
        log_q, log_p = common_log_probs(student, teacher)
        return 0.5 * (log_p.exp() - log_q.exp()).abs().sum(-1)

Its positional parameters are what it needs of each batch (`kd.losses.needs.BATCH`); its
keyword-only parameters are its options, each with a default; it returns one value for each
of the N aligned answer tokens (or, declared with `rows="batch"`, a scalar). Labels,
shift, alignment, temperature and reduction are not its business (`kd.losses.distillation`).

A loss with weights or state of its own is a decorated `torch.nn.Module`: the positional
parameters of its `__init__` are what it needs once (`kd.losses.needs.SETUP`), the
keyword-only ones its options, and the parameters of its `forward` what it needs of each
batch. If it has a method `step(value)`, that is called after every optimiser step with the
value that the loss had in it. What is to survive an interruption is a parameter or a buffer.

The keywords must be literals, because `kd.losses.catalogue` reads them from the source
text: validating an experiment must not import torch.
"""

from collections.abc import Callable
from typing import Literal, TypeVar

Declared = TypeVar("Declared", bound=Callable[..., object])

Truncation = Literal["unaffected", "certified", "lower_bound", "unbounded", "dense"]
"""What becomes of the value when only the teacher's top-k is known.

`unaffected`: nothing, what was dropped is not read. `certified`: the error is at most the
dropped mass times a stated factor. `lower_bound`: the full value is at least this one, by an
amount that is not bounded. `unbounded`: an estimate whose error is not known. `dense`: the
loss is not defined, and refused, unless nothing was dropped.
"""


def loss(  # noqa: PLR0913 - one keyword for each thing that is declared
    name: str,
    *,
    family: str,
    same_vocabulary: bool,
    truncation: Truncation,
    formula: str,
    source: str,
    aliases: tuple[str, ...] = (),
    alignments: tuple[str, ...] = ("truncate",),
    choices: dict[str, tuple[str, ...]] | None = None,
    ranges: dict[str, str] | None = None,
    dense_when: dict[str, tuple[object, ...]] | None = None,
    rows: Literal["independent", "batch"] = "independent",
    kernel: str | None = None,
    bound: str | None = None,
    unbounded_when: dict[str, tuple[object, ...]] | None = None,
    reads_ids: bool = True,
    unbiased_on_draws: bool = False,
) -> Callable[[Declared], Declared]:
    """Declare a loss. The function or class itself stays as it is.

    Args:
        name: what experiments call it.
        family: the group under which `kd losses` lists it.
        same_vocabulary: whether token i must mean the same to student and teacher.
        truncation: what becomes of the value under a top-k teacher (see `Truncation`).
        formula: value of one row, in LaTeX; p is the teacher's distribution, q the student's.
        source: paper and equation.
        aliases: other names by which experiments may call it.
        alignments: those of `kd.alignment.ALIGNMENTS` under which it is defined, the default
            first.
        choices: the values that an option knows, where they can be listed.
        ranges: intervals of options that are numbers (or lists of them), as "[0, 1]".
        dense_when: values of options with which `truncation` is 'dense', whatever it is else.
        rows: `batch` if a value depends on other rows than its own, or is a scalar.
        kernel: dotted module whose function of the same name also gives values and gradients, only
            faster (see `kd.losses.kernels`).
        bound: dotted module whose function of the same name bounds the error of each row on
            stored logits (see `kd.losses.bounds`).
        unbounded_when: values of options with which there is no such bound.
        reads_ids: whether it matters which tokens the teacher's probabilities are of.
        unbiased_on_draws: whether tokens drawn from the teacher's distributions give its gradient
            without bias: whether it is linear in the teacher's probabilities.
    """
    # Read by kd.losses.catalogue.
    del name, family, same_vocabulary, truncation, formula, source
    del aliases, alignments, choices, ranges, dense_when, rows, kernel
    del bound, unbounded_when, reads_ids, unbiased_on_draws

    def unchanged(declared: Declared) -> Declared:
        return declared

    return unchanged
