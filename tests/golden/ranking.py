"""Ranking of the teacher's stored top-k. Labels stand at the row that predicts them."""

from dataclasses import replace
from typing import Any

from tests.golden.calls import Call, Hyper, Inputs, source
from tests.golden.sparse import at_answers

REPOSITORY = "arcee-ai/DistillKit"


@source((REPOSITORY, "sparse_hinge_loss"))
def mean_hinge(inputs: Inputs, hyper: Hyper) -> Call:
    return over_all_pairs(inputs, "hinge_ranking", margin=hyper.pop("margin", None))


@source((REPOSITORY, "sparse_logistic_ranking_loss"))
def mean_logistic(inputs: Inputs, hyper: Hyper) -> Call:
    return over_all_pairs(inputs, "logistic_ranking")


def over_all_pairs(inputs: Inputs, name: str, **options: Any) -> Call:
    """Their sum is divided by the number of ordered pairs in the batch, ties not counted."""
    teacher = at_answers(inputs, inputs["target_logprobs"])
    probs = teacher.all_rows().log_probs.exp()
    k = probs.shape[-1]
    ordered = (probs[:, :, None] > probs[:, None, :]) & (probs[:, None, :] > 0)
    call = inputs.call(name, shift=False, k=k, normalizer=1, **options)
    scale = k * (k - 1) / 2 / int(ordered.sum())
    return replace(call, teacher_logits=teacher, teacher_labels=None, scale=scale)
