"""What ours does where other systems fail, by the behaviour's name in the file of edge cases.

The file tells what happened (a value, NaN, an exception, a number of NaN entries) but gives no
tensors. Each behaviour is therefore shown on small inputs of our own, and returns our value
where theirs can be compared with it.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from kd.losses import distillation_loss
from tests.golden.calls import IGNORED

Behaviour = Callable[[], float | None]
BEHAVIOURS: dict[str, Behaviour] = {}

# On a common vocabulary, as well as across two.
COMMON = ("forward_kl", "reverse_kl", "jensen_shannon", "skew_kl", "adaptive_kl", "amid")
ACROSS = ("uld", "multi_level_ot")


def behaviour(*names: str) -> Callable[[Behaviour], Behaviour]:
    def register(show: Behaviour) -> Behaviour:
        BEHAVIOURS.update(dict.fromkeys(names, show))
        return show

    return register


def logits(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def computed(
    name: str, student: Tensor, teacher: Tensor, labels: Tensor, **settings: object
) -> tuple[float, Tensor]:
    """Value and gradient of a loss whose sides share their labels."""
    student = student.clone().requires_grad_()
    value = distillation_loss(name, student, teacher, labels, labels, **settings)  # type: ignore[arg-type]
    value.backward()
    assert student.grad is not None
    return value.item(), student.grad


def sides() -> Iterator[tuple[str, Tensor, Tensor]]:
    """Every loss with a student and a teacher, [2, 5, V]."""
    for name in (*COMMON, *ACROSS):
        yield name, logits(0, 2, 5, 7), logits(1, 2, 5, 7 if name in COMMON else 9)


@behaviour("all_masked")
def nothing_is_scored() -> float:
    """0, with a zero gradient."""
    labels = torch.full((2, 5), IGNORED)
    for name, student, teacher in sides():
        value, gradient = computed(name, student, teacher, labels)
        assert value == 0 and not gradient.any(), name
    return 0.0


@behaviour("all_masked_sample")
def one_sequence_is_not_scored() -> None:
    """It does not count: the value is that of the others alone, and its gradient 0."""
    labels = torch.tensor([[IGNORED, IGNORED, 1, 2, 3], [IGNORED] * 5])
    for name, student, teacher in sides():
        value, gradient = computed(name, student, teacher, labels, reduction="sequence")
        alone, of_alone = computed(name, student[:1], teacher[:1], labels[:1], reduction="sequence")
        assert value > 0 and abs(value - alone) < 1e-12, name
        assert not gradient[1].any(), name
        torch.testing.assert_close(gradient[:1], of_alone)


@behaviour("no_prompt")
def the_first_token_has_no_predictor() -> None:
    """The shift is the same with and without a prompt: a scored first token changes nothing."""
    every = torch.tensor([[4, 0, 1, 2, 3], [1, 1, 2, 2, 0]])
    later = every.clone()
    later[:, 0] = IGNORED
    for name, student, teacher in sides():
        value, gradient = computed(name, student, teacher, every)
        expected, of_expected = computed(name, student, teacher, later)
        assert value == expected and gradient.equal(of_expected), name
        assert gradient[:, 0].any() and not gradient[:, -1].any(), name


@behaviour("k_gt_V")
def more_tokens_kept_than_there_are() -> None:
    """All are kept, the same as with a k that is the vocabulary's size."""
    labels = torch.tensor([[IGNORED, IGNORED, 1, 2, 3]])
    student, teacher = logits(0, 1, 5, 7), logits(1, 1, 5, 4)
    for variant in ("paper", "head", "pre202602"):
        options = {"variant": variant, "reduction": "sequence"}
        many, of_many = computed("multi_level_ot", student, teacher, labels, top_k=50, **options)
        all_of_them, of_all = computed(
            "multi_level_ot", student, teacher, labels, top_k=7, **options
        )
        assert many == all_of_them and of_many.equal(of_all)
    value, _ = computed("uld", student, teacher, labels)
    assert 0 < value < 2


@behaviour("AKL.identical")
def identical_models() -> float:
    """0, with a zero gradient, under both rules of what the head is."""
    same, labels = logits(0, 2, 5, 7), torch.tensor([[IGNORED, 0, 1, 2, 3]] * 2)
    for rule in ("prefix", "crossing"):
        value, gradient = computed("adaptive_kl", same, same, labels, head_rule=rule)
        assert value == 0 and gradient.isfinite().all()
        assert gradient.abs().max() < 1e-15
    return 0.0


@behaviour("identical_multiset")
def a_permuted_vocabulary() -> float:
    """ULD is 0 for distributions that are far apart."""
    student, labels = logits(0, 2, 5, 7), torch.tensor([[IGNORED, 0, 1, 2, 3]] * 2)
    teacher = student.flip(-1)
    value, _ = computed("uld", student, teacher, labels)
    apart, _ = computed("total_variation", student, teacher, labels)
    assert abs(value) < 1e-15 and apart > 0.1
    return value


@behaviour("skl_grad_with_padded_vocab")
def padded_columns() -> float:
    """No entry of the gradient is NaN; the padding's are 0, the others as without it."""
    labels = torch.tensor([[IGNORED, 0, 1, 2, 3]] * 2)
    student, teacher = logits(0, 2, 5, 7), logits(1, 2, 5, 7)
    padded = [
        torch.nn.functional.pad(side, (0, 2), value=-torch.inf) for side in (student, teacher)
    ]
    for name in (*COMMON, "skew_reverse_kl"):
        _, expected = computed(name, student, teacher, labels)
        _, gradient = computed(name, *padded, labels)
        torch.testing.assert_close(gradient[..., :7], expected)
        assert not gradient[..., 7:].any(), name
    return 0.0
