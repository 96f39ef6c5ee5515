"""Jensen-Shannon and total variation. Labels stand at the row that predicts them: no shift."""

from typing import Any

from tests.golden.calls import Call, Hyper, Inputs, Unsupported, source
from tests.golden.kl import ABKD, AMID, DISTILLM, DSKD, KDFLOW, TOKENKIT, summed, tempered

TRL = "huggingface/trl"
DISTILLKIT = "arcee-ai/DistillKit"


@source(
    (TRL, "GKDTrainer.generalized_jsd_loss"),
    (TRL, "generalized_jsd_loss"),
    ("linkedin/Liger-Kernel", "LigerFusedLinearJSDFunction.distillation_loss_fn"),
)
def generalised_jsd(inputs: Inputs, hyper: Hyper) -> Call:
    """Teacher weights 0 and 1 are branches of their own: forward and reverse KL."""
    return trl_jsd(inputs, hyper, hyper.pop("beta", 0.5))


@source((TRL, "_chunked_divergence_loss (identity lm_head)"))
def reverse_by_default(inputs: Inputs, hyper: Hyper) -> Call:
    return trl_jsd(inputs, hyper, hyper.pop("beta", 1.0))


def trl_jsd(inputs: Inputs, hyper: Hyper, weight: float) -> Call:
    name = {0: "forward_kl", 1: "reverse_kl"}.get(weight, "jensen_shannon")
    options = {"teacher_weight": weight} if name == "jensen_shannon" else {}
    call = inputs.call(name, shift=False, temperature=hyper.pop("temperature", 1.0), **options)
    if "labels" in hyper and hyper.pop("labels") is None:
        call.student_labels = call.teacher_labels = inputs.everywhere("student")
        call.settings["normalizer"] = len(call.student_labels)
    return call


@source((DISTILLM, "js_distance"))
def weight_of_student(inputs: Inputs, hyper: Hyper) -> Call:
    return jensen_shannon(inputs, 1 - hyper.pop("lam", 0.9))


@source((ABKD, "js_distance"), (AMID, "js_distance"))
def small_weight_of_student(inputs: Inputs, hyper: Hyper) -> Call:
    return jensen_shannon(inputs, 1 - hyper.pop("lam", 0.1))


@source((KDFLOW, "compute_js_div"))
def tempered_weight_of_student(inputs: Inputs, hyper: Hyper) -> Call:
    temperature = hyper.pop("temperature", 1.0)
    return jensen_shannon(inputs, 1 - hyper.pop("jsd_beta", 0.5), temperature=temperature)


@source(("SakanaAI/TAID", "JS.forward"))
def weight_of_teacher(inputs: Inputs, hyper: Hyper) -> Call:
    return jensen_shannon(inputs, hyper.pop("teacher_weight", 0.1))


def jensen_shannon(inputs: Inputs, weight: float, **settings: Any) -> Call:
    if weight in (0, 1):
        raise Unsupported("a Jensen-Shannon divergence of weight 0 or 1, which is always 0")
    return inputs.call("jensen_shannon", shift=False, teacher_weight=weight, **settings)


@source((DSKD, "VariousDivergence.compute_js_divergence"))
def summed_jensen_shannon(inputs: Inputs, hyper: Hyper) -> Call:
    """Theirs adds 1e-9 within logarithms."""
    return summed(inputs, hyper, "jensen_shannon")


@source((TOKENKIT, "compute_js_divergence"))
def summed_jensen_shannon_everywhere(inputs: Inputs, hyper: Hyper) -> Call:
    return inputs.call("jensen_shannon", shift=False, normalizer=1)


@source((DISTILLKIT, "dense_js_div then *T^2/num_items"))
def jensen_shannon_times_t2(inputs: Inputs, hyper: Hyper) -> Call:
    return times_t2(inputs, hyper, "jensen_shannon")


@source((DISTILLM, "tv_distance"), (ABKD, "tv_distance"), (AMID, "tv_distance"))
def mean_total_variation(inputs: Inputs, hyper: Hyper) -> Call:
    return inputs.call("total_variation", shift=False)


@source((KDFLOW, "compute_tvd"))
def tempered_total_variation(inputs: Inputs, hyper: Hyper) -> Call:
    return tempered(inputs, hyper, "total_variation")


@source((DISTILLKIT, "dense_tvd then *T^2/num_items"))
def total_variation_times_t2(inputs: Inputs, hyper: Hyper) -> Call:
    return times_t2(inputs, hyper, "total_variation")


def times_t2(inputs: Inputs, hyper: Hyper, name: str) -> Call:
    temperature = hyper.pop("temperature")
    return inputs.call(name, shift=False, temperature=temperature, t2_scaling=True)
