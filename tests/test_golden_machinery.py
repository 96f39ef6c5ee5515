"""What the comparison with golden cases does on cases that the folder may not have."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.golden import RESTATEMENTS, SOURCES, Inputs
from tests.test_golden import compare, defects_of, derived, evaluated, require_defect, translated

ABKD = "ghwang-s/abkd"
REVERSE_KL = {"repo": "jongwooko/distillm", "function": "reverse_kl", "hyper": {}}


def inputs_of(dtype: torch.dtype, padding: int = 0) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    sides = torch.randn(2, 2, 3, 6, generator=generator, dtype=dtype) * 2
    student, teacher = torch.nn.functional.pad(sides, (0, padding), value=-torch.inf)
    labels = torch.tensor([[3, 4, -100], [-100, 5, 2]])
    return Inputs({"student_logits": student, "teacher_logits": teacher, "labels": labels})


def strings(values: Tensor) -> Any:
    """As the files write tensors: numbers that are not finite are strings."""
    if values.ndim:
        return [strings(value) for value in values]
    return values.item() if values.isfinite() else str(values.item())


def test_a_padded_adaptive_kl_is_a_defect_of_theirs() -> None:
    case: dict[str, Any] = {"repo": ABKD, "function": "AKL", "hyper": {"mu": 0.5}}
    inputs = inputs_of(torch.float32, padding=2)
    logits = inputs["student_logits"].clone().requires_grad_()
    value = RESTATEMENTS[ABKD, "AKL"](
        Inputs(inputs.tensors | {"student_logits": logits}), case["hyper"]
    )
    assert value is not None
    value.backward()
    assert logits.grad is not None
    case |= {"loss": value.item(), "grad_student_logits": strings(logits.grad)}
    (entry,) = defects_of(case, inputs)
    require_defect(case, inputs, entry, *evaluated(translated(case, inputs, {"mu": 0.5})))
    assert not defects_of(case, inputs_of(torch.float32))


@pytest.mark.parametrize("padding", [0, 2])
def test_a_gradient_that_is_nan_is_compared_nevertheless(padding: int) -> None:
    """With what ours is without padded columns, or with differences of the value."""
    inputs = inputs_of(torch.float32, padding)
    value, gradient = evaluated(translated(REVERSE_KL, inputs, {}))
    missing = torch.full_like(gradient, torch.nan)
    case = REVERSE_KL | {"loss": value.item(), "grad_student_logits": strings(missing)}
    compare(case, inputs, value, gradient)
    wrong = gradient.clone()
    wrong[0, 0, 0] += 1e-3
    with pytest.raises(AssertionError):
        compare(case, inputs, value, wrong)
    assert not derived(case, inputs)[..., 6:].any()


def test_labels_count_the_columns_that_are_left() -> None:
    inputs = inputs_of(torch.float64)
    without = inputs.without(torch.tensor([True, False, False, False, False, False]))
    assert without["labels"].tolist() == [[2, 3, -100], [-100, 4, 1]]
    assert without["student_logits"].shape[-1] == 5


def test_a_function_without_a_translation_fails() -> None:
    case = {"repo": "some/where", "function": "other_loss", "hyper": {"x": 1}}
    assert ("some/where", "other_loss") not in SOURCES
    with pytest.raises(pytest.fail.Exception, match="add a function decorated with @source"):
        translated(case, inputs_of(torch.float32), {"x": 1})
