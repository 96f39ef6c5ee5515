"""GOLD's functions: universal logit distillation on positions or spans of text, and hybrid.

`observed` forgets the causal shift. On single tokens that is a shift less, and harmless to
compare; on spans it also multiplies by what the tokens after a row were given, which belongs
to no probability of the span: a defect.
"""

from typing import Any

import torch
from torch import Tensor

from kd.losses import Extras, Setup
from kd.losses.setup import Vocabularies
from kd.losses.span_merged import matched_tokens
from tests.golden.calls import IGNORED, Call, Defect, Hyper, Inputs, Unsupported, defect, source
from tests.golden.uld import skipping_end

TRL = "huggingface/trl"
POSITIONAL = (TRL, "ULDLoss.__call__")
EXTENDED = (TRL, "ULDLoss.__call__ (byte-offset span merge)")
HYBRID = (TRL, "ULDLoss hybrid")


@source(POSITIONAL, EXTENDED)
def gold_uld(inputs: Inputs, hyper: Hyper) -> Call:
    """Sorted distributions, by position or by span."""
    return aligned(inputs, hyper, "uld", {})


@source(HYBRID)
def gold_hybrid(inputs: Inputs, hyper: Hyper) -> Call:
    """Tokens of the same name by divergence, the others sorted."""
    hyper.pop("hybrid", None)
    hyper.pop("hybrid_weights", None)  # says how weights are found where none are given
    vocabularies = Vocabularies(
        *(
            names(hyper.pop(f"{side}_vocab"), inputs[f"{side}_logits"].shape[-1])
            for side in ("student", "teacher")
        )
    )
    beta = hyper.pop("beta", 0.5)
    own, _ = matched_tokens(vocabularies.student, vocabularies.teacher)
    share = len(own) / len(vocabularies.teacher)
    matched = hyper.pop("matched_weight", share)
    unmatched = hyper.pop("unmatched_weight", 1 - share)
    call = aligned(
        inputs,
        hyper,
        "gold_hybrid",
        {
            "setup": Setup(vocabularies=vocabularies),
            "teacher_weight": beta,
            "scaled": beta in (0, 1),  # its limits, as branches of their own
            "mass_terms": False,
            "matched_weight": matched,
            "unmatched_weight": unmatched,
        },
    )
    if len(own) == len(vocabularies.teacher) > 0 and len(own) < len(vocabularies.student):
        raise Unsupported("drops what the student gives to tokens that the teacher lacks")
    if len(own) == len(vocabularies.student):
        # The second term is dropped; without student tokens in it, it is a constant.
        alone = Call(**(vars(call) | {"settings": call.settings | {"matched_weight": 0.0}}))
        call.offset = -alone.value().detach()
    return call


def aligned(inputs: Inputs, hyper: Hyper, name: str, settings: dict[str, Any]) -> Call:
    """A call by position or by span; the mean is one over sequences."""
    extended = hyper.pop("use_extended_uld", True)
    observed = hyper.pop("uld_token_merge_strategy", "observed") == "observed"
    extras = Extras()
    if extended:
        extras = Extras(
            *(inputs[f"{side}_byte_offsets"][..., 1] for side in ("student", "teacher"))
        )
    call = inputs.call(
        name,
        **settings,
        alignment="spans" if extended else "truncate",
        extras=extras,
        reduction="sequence",
        shift=extended or not observed,
        temperature=hyper.pop("uld_student_temperature", 1.0),
        teacher_temperature=hyper.pop("uld_teacher_temperature", 1.0),
    )
    call.scale = hyper.pop("uld_distillation_weight", 1.0)
    return skipping_end(call, hyper, "skip_eos", "skip_eos")


def names(vocabulary: dict[str, int], width: int) -> list[str | None]:
    """The name of each token, by its id."""
    found: list[str | None] = [None] * width
    for name, number in vocabulary.items():
        found[number] = name
    return found


def only_causal_rows(inputs: Inputs, hyper: Hyper, value: Tensor, gradient: Tensor) -> bool:
    """Whether the gradient is in the rows that predict the answer, from the first one on."""
    without_end = "skip_eos" if hyper.get("skip_eos") else "no flag"
    call = skipping_end(inputs.call("uld"), {"skip_eos": True}, without_end, without_end)
    predicts = torch.zeros(gradient.shape[:2], dtype=torch.bool)
    predicts[:, :-1] = call.student_labels[:, 1:] != IGNORED
    reached = gradient.abs().sum(-1) > 0
    first = predicts & (predicts.cumsum(1) == 1)
    return not bool((reached & ~predicts).any()) and bool(reached[first].all())


defect(
    EXTENDED,
    HYBRID,
    entry=Defect(
        reason="'observed' spans: neither shift nor chain rule; rows that predict later text learn",
        holds=only_causal_rows,
        applies=lambda inputs, hyper: (
            hyper.get("use_extended_uld", True)
            and hyper.get("uld_token_merge_strategy", "observed") == "observed"
        ),
    ),
)
