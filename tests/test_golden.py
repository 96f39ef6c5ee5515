"""Our losses against values and gradients that other systems' own code gave.

Cases are read from the folder named by KD_GOLDEN_DIR. `tests.golden` says, for a function of
another system, which of our losses it is and which of our arguments its hyper-parameters are;
it knows of no single case. A function that it does not know, or a hyper-parameter value for
which we have no loss yet, is skipped as 'not yet'; a hyper-parameter nobody reads is a failure.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.golden import DEFECTS, SOURCES, Inputs, NotYet, Unsupported, tensor
from tests.golden.calls import Defect

FILES = ("same_vocab.json", "cross_tokenizer.json", "sparse_topk.json", "alm_tokenkit.json")
# As each file states them; relative to the value, and to each entry of the gradient.
TOLERANCE = {torch.float32: (2e-5, 2e-6), torch.float64: (1e-9, 1e-12)}  # rtol, atol


def golden_cases() -> list[Any]:
    folder = os.environ.get("KD_GOLDEN_DIR")
    if not folder:
        skip = pytest.mark.skip(reason="KD_GOLDEN_DIR is not set: no golden vectors to compare")
        return [pytest.param(None, None, marks=skip, id="none")]
    params = []
    for name in FILES:
        content = json.loads((Path(folder) / name).read_text())
        for case in content["cases"]:
            inputs = content["inputs"].get(case["inputs"], {})
            params.append(pytest.param(case, inputs, id=f"{Path(name).stem}:{case['id']}"))
    return params


@pytest.mark.parametrize(("case", "inputs"), golden_cases())
def test_golden(case: dict[str, Any], inputs: dict[str, Any]) -> None:
    key = (case["repo"], case["function"])
    if key not in SOURCES:
        pytest.skip(f"not yet: {' '.join(key)}")
    dtype = torch.float64 if case.get("dtype") == "float64" else torch.float32
    tensors = {name: tensor(values, dtype) for name, values in inputs.items()}
    hyper = dict(case["hyper"])
    try:
        call = SOURCES[key](Inputs(tensors), hyper)
    except NotYet as reason:
        pytest.skip(f"not yet: {reason}")
    except Unsupported as reason:
        pytest.skip(f"not offered: {reason}")
    assert not hyper, f"hyper-parameters that no mapping reads: {sorted(hyper)}"
    call.student_logits.requires_grad_()
    value = call.value()
    value.backward()
    gradient = call.student_logits.grad
    assert gradient is not None and gradient.isfinite().all()
    for entry in DEFECTS.get(key, []):
        if entry.applies(case["hyper"]):
            return require_defect(case, Inputs(tensors), entry, value.detach(), gradient)
    compare(case, value.detach(), gradient)


def compare(case: dict[str, Any], value: Tensor, gradient: Tensor) -> None:
    """Value and gradient; where the file says that theirs lost digits, only what is left of them.

    It gives the value that float64 has, but of the gradient only how far theirs is from that.
    """
    theirs, (rtol, atol) = case["loss"], TOLERANCE[value.dtype]
    lost = case.get("ref_agrees", True) is False
    if lost:
        theirs = case["ref_float64_loss"]
    assert math.isclose(value.item(), float(theirs), rel_tol=rtol, abs_tol=atol)
    if lost:
        atol += float(case["ref_grad_maxdiff"])
    expected = tensor(case["grad_student_logits"], value.dtype)
    expected = expected.where(expected.isfinite(), gradient)
    torch.testing.assert_close(gradient, expected, rtol=rtol, atol=atol)


def require_defect(
    case: dict[str, Any], inputs: Inputs, entry: Defect, value: Tensor, gradient: Tensor
) -> None:
    """We differ, and an identity tells who is right: it holds for ours and not for theirs."""
    with pytest.raises(AssertionError):
        compare(case, value, gradient)
    theirs = tensor(case["loss"], value.dtype), tensor(case["grad_student_logits"], value.dtype)
    hyper = dict(case["hyper"])
    assert entry.holds(inputs, hyper, value, gradient), "ours breaks the identity too"
    assert not entry.holds(inputs, hyper, *theirs), f"not wrong after all: {entry.reason}"
