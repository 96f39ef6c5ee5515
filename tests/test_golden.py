"""Our losses against values and gradients that other systems' own code gave.

Cases are read from every JSON file of the folder named by KD_GOLDEN_DIR. `tests.golden` says,
for a function of another system, which of our losses it is and which of our arguments its
hyper-parameters are; it knows of no single case. A file or a function that it does not know,
and a hyper-parameter nobody reads, are failures. A function, or a range of hyper-parameters,
that we do not offer is skipped with its reason, never for what a case's tensors are.

Where another system is wrong, an identity that is true of ours and false of theirs says so, and
a restatement with its faults, and nothing else changed, gives what it gave.

How many cases of each file pass as they are, are declared defects, or are not offered:

    pytest tests/test_golden.py -k counts -s
"""

import json
import math
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.golden import DEFECTS, RESTATEMENTS, SOURCES, Inputs, Unsupported, tensor
from tests.golden.calls import Call, Defect

# Which test compares the cases of which file.
HERE = ("same_vocab.json", "cross_tokenizer.json", "sparse_topk.json", "alm_tokenkit.json")
ELSEWHERE = {
    "edge_cases.json": "test_golden_edge_cases.py",
    "taid_schedule.json": "test_golden_taid_schedule.py",
    "uld_vs_exact_ot.json": "losses/test_uld_against_exact_ot.py",
}
# As each file states them; relative to the value, and to each entry of the gradient.
TOLERANCE = {torch.float32: (2e-5, 2e-6), torch.float64: (1e-9, 1e-12)}  # rtol, atol
STEP = 1e-6  # of central differences, in float64

Case = dict[str, Any]
UNSET = pytest.mark.skip(reason="KD_GOLDEN_DIR is not set: no golden vectors to compare")


def golden_files() -> list[Path]:
    folder = os.environ.get("KD_GOLDEN_DIR")
    return sorted(Path(folder).glob("*.json")) if folder else []


def cases_of(path: Path) -> list[tuple[Case, dict[str, Any]]]:
    content = json.loads(path.read_text())
    return [(case, content["inputs"].get(case["inputs"], {})) for case in content["cases"]]


def golden_cases() -> list[Any]:
    params = [
        pytest.param(case, inputs, id=f"{path.stem}:{case['id']}")
        for path in golden_files()
        if path.name in HERE
        for case, inputs in cases_of(path)
    ]
    return params or [pytest.param(None, None, marks=UNSET, id="none")]


@pytest.mark.skipif(not golden_files(), reason="KD_GOLDEN_DIR is not set")
def test_every_file_of_the_folder_is_compared_somewhere() -> None:
    unknown = {path.name for path in golden_files()} - {*HERE, *ELSEWHERE}
    assert not unknown, f"name the test that compares {sorted(unknown)} in HERE or ELSEWHERE"
    tests = Path(__file__).parent
    assert all((tests / test).is_file() for test in ELSEWHERE.values())


@pytest.mark.parametrize(("case", "inputs"), golden_cases())
def test_golden(case: Case, inputs: dict[str, Any]) -> None:
    tensors = tensors_of(case, inputs)
    hyper = dict(case["hyper"])
    try:
        call = translated(case, tensors, hyper)
    except Unsupported as reason:
        pytest.skip(f"not offered: {reason}")
    assert not hyper, f"hyper-parameters that no mapping reads: {sorted(hyper)}"
    value, gradient = evaluated(call)
    assert gradient.isfinite().all()
    entries = defects_of(case, tensors)
    for entry in entries:
        require_defect(case, tensors, entry, value, gradient)
    if entries:
        require_restatement(case, tensors)
    else:
        compare(case, tensors, value, gradient)


def translated(case: Case, inputs: Inputs, hyper: dict[str, Any]) -> Call:
    key = case["repo"], case["function"]
    if key not in SOURCES:
        pytest.fail(
            f"nothing in tests/golden registers {key}: add a function decorated with "
            f"@source({key!r}) that translates its inputs {sorted(inputs.tensors)} and its "
            f"hyper-parameters {sorted(hyper)}, or raises Unsupported with the reason"
        )
    return SOURCES[key](inputs, hyper)


def tensors_of(case: Case, inputs: dict[str, Any], dtype: torch.dtype | None = None) -> Inputs:
    dtype = dtype or (torch.float64 if case.get("dtype") == "float64" else torch.float32)
    return Inputs({name: tensor(values, dtype) for name, values in inputs.items()})


def defects_of(case: Case, inputs: Inputs) -> list[Defect]:
    declared = DEFECTS.get((case["repo"], case["function"]), [])
    return [entry for entry in declared if entry.applies(inputs, dict(case["hyper"]))]


def evaluated(call: Call) -> tuple[Tensor, Tensor]:
    """Value of a call and gradient in the student's logits."""
    call.student_logits = call.student_logits.detach().requires_grad_()
    value = call.value()
    value.backward()
    assert call.student_logits.grad is not None
    return value.detach(), call.student_logits.grad


def compare(case: Case, inputs: Inputs, value: Tensor, gradient: Tensor) -> None:
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
    if not expected.isfinite().all():
        expected = expected.where(expected.isfinite(), derived(case, inputs).to(value.dtype))
    torch.testing.assert_close(gradient, expected, rtol=rtol, atol=atol)


def derived(case: Case, inputs: Inputs) -> Tensor:
    """The gradient where theirs is not finite: ours without what makes theirs so.

    That is the columns that pad the vocabulary, in which it is 0. Without such columns it is
    central differences of our value, in float64.
    """
    columns = inputs.padding()
    if columns.any():
        _, kept = evaluated(translated(case, inputs.without(columns), dict(case["hyper"])))
        gradient = torch.zeros_like(inputs["student_logits"])
        gradient[..., ~columns] = kept
        return gradient
    exact = {
        name: values.double() if values.is_floating_point() else values
        for name, values in inputs.tensors.items()
    }
    gradient = torch.zeros_like(exact["student_logits"])
    for index in torch.cartesian_prod(*map(torch.arange, gradient.shape)).tolist():
        sides = []
        for step in (STEP, -STEP):
            moved = exact["student_logits"].clone()
            moved[tuple(index)] += step
            call = translated(case, Inputs(exact | {"student_logits": moved}), dict(case["hyper"]))
            sides.append(call.value().item())
        gradient[tuple(index)] = (sides[0] - sides[1]) / (2 * STEP)
    return gradient


def require_defect(
    case: Case, inputs: Inputs, entry: Defect, value: Tensor, gradient: Tensor
) -> None:
    """An identity tells who is right: it holds for ours and not for theirs."""
    theirs = tensor(case["loss"], value.dtype), tensor(case["grad_student_logits"], value.dtype)
    hyper = dict(case["hyper"])
    assert entry.holds(inputs, hyper, value, gradient), f"ours breaks it too: {entry.reason}"
    assert not entry.holds(inputs, hyper, *theirs), f"not wrong after all: {entry.reason}"


def require_restatement(case: Case, inputs: Inputs) -> None:
    """The declared faults explain all of the difference: with them we give what theirs gives."""
    restate = RESTATEMENTS.get((case["repo"], case["function"]))
    if restate is None:
        return
    logits = inputs["student_logits"].detach().requires_grad_()
    value = restate(Inputs(inputs.tensors | {"student_logits": logits}), dict(case["hyper"]))
    if value is None:
        return
    value.backward()
    assert logits.grad is not None
    rtol, atol = TOLERANCE[logits.dtype]
    expected = tensor(case["grad_student_logits"], logits.dtype)
    assert math.isclose(value.item(), float(case["loss"]), rel_tol=rtol, abs_tol=atol)
    # Not finite is one more fault, of code that was never meant for such input.
    expected = expected.where(expected.isfinite(), logits.grad)
    torch.testing.assert_close(logits.grad, expected, rtol=rtol, atol=atol)


@pytest.mark.skipif(not golden_files(), reason="KD_GOLDEN_DIR is not set")
def test_counts_of_outcomes_are_of_all_cases(capsys: pytest.CaptureFixture[str]) -> None:
    """Prints what the other tests of this module make of each file."""
    for path in golden_files():
        if path.name not in HERE:
            continue
        cases = cases_of(path)
        counts = Counter(outcome(case, tensors_of(case, inputs)) for case, inputs in cases)
        line = ", ".join(f"{counts[kind]} {kind}" for kind in ("agree", "defects", "not offered"))
        with capsys.disabled():
            print(f"\n{path.name}: {len(cases)} cases: {line}", end="")
        assert counts.total() == len(cases) > 0


def outcome(case: Case, inputs: Inputs) -> str:
    try:
        translated(case, inputs, dict(case["hyper"]))
    except Unsupported:
        return "not offered"
    return "defects" if defects_of(case, inputs) else "agree"
