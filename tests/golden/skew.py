"""Functions that are skew divergences. Labels stand at the row that predicts them: no shift."""

from dataclasses import replace

from tests.golden.calls import Call, Hyper, Inputs, source
from tests.golden.kl import teacher_entropy


@source(
    ("jongwooko/distillm", "skewed_forward_kl"),
    ("ghwang-s/abkd", "skewed_forward_kl"),
    ("aailab-kaist/AMiD", "skewed_forward_kl"),
)
def cross_entropy_form(inputs: Inputs, hyper: Hyper) -> Call:
    """The teacher's entropy is not subtracted."""
    call = inputs.call("skew_kl", shift=False, skew=hyper.pop("lam", 0.1))
    return replace(call, offset=teacher_entropy(call))


@source(
    ("jongwooko/distillm", "skewed_reverse_kl"),
    ("ghwang-s/abkd", "skewed_reverse_kl"),
    ("aailab-kaist/AMiD", "skewed_reverse_kl"),
)
def mean_skew_reverse_kl(inputs: Inputs, hyper: Hyper) -> Call:
    return inputs.call("skew_reverse_kl", shift=False, skew=hyper.pop("lam", 0.1))


@source(("songmzhang/DSKD", "VariousDivergence.compute_skewed_forward_kl_divergence"))
def summed_skew_kl(inputs: Inputs, hyper: Hyper) -> Call:
    return summed(inputs, hyper, "skew_kl")


@source(("songmzhang/DSKD", "VariousDivergence.compute_skewed_reverse_kl_divergence"))
def summed_skew_reverse_kl(inputs: Inputs, hyper: Hyper) -> Call:
    return summed(inputs, hyper, "skew_reverse_kl")


@source(("bminixhofer/tokenkit", "compute_skewed_forward_kl_divergence"))
def summed_skew_kl_everywhere(inputs: Inputs, hyper: Hyper) -> Call:
    return inputs.call("skew_kl", shift=False, normalizer=1, skew=hyper.pop("skew_lambda", 0.1))


@source(("bminixhofer/tokenkit", "compute_skewed_reverse_kl_divergence"))
def summed_skew_reverse_kl_everywhere(inputs: Inputs, hyper: Hyper) -> Call:
    return inputs.call(
        "skew_reverse_kl", shift=False, normalizer=1, skew=hyper.pop("skew_lambda", 0.1)
    )


@source(("songmzhang/KDFlow", "compute_skewed_kl_div"))
def tempered_skew_kl(inputs: Inputs, hyper: Hyper) -> Call:
    return tempered(inputs, hyper, "skew_kl")


@source(("songmzhang/KDFlow", "compute_skewed_rkl_div"))
def tempered_skew_reverse_kl(inputs: Inputs, hyper: Hyper) -> Call:
    return tempered(inputs, hyper, "skew_reverse_kl")


def summed(inputs: Inputs, hyper: Hyper, name: str) -> Call:
    return inputs.call(
        name,
        shift=False,
        normalizer=1,
        temperature=hyper.pop("kd_temperature"),
        skew=hyper.pop("skew_lambda", 0.1),
    )


def tempered(inputs: Inputs, hyper: Hyper, name: str) -> Call:
    return inputs.call(
        name,
        shift=False,
        temperature=hyper.pop("temperature", 1.0),
        skew=hyper.pop("skew_lambda", 0.1),
    )
