"""Multi-level optimal transport, with Hugging Face labels."""

from tests.golden.calls import Call, Defect, Hyper, Inputs, Unsupported, defect, source
from tests.golden.uld import predicts_the_answer, skipping_end

REPOSITORY = "2018cx/Multi-Level-OT"
PORT = ("agokrani/distillKitPlus", "multi_level_ot_loss")


@source(
    (REPOSITORY, "DistillationLoss.forward (f=1, HEAD)"),
    (REPOSITORY, "DistillationLoss.forward (f=2 greedy, HEAD)"),
)
def since_2026(inputs: Inputs, hyper: Hyper) -> Call:
    return released(inputs, hyper, "head")


@source(
    (REPOSITORY, "DistillationLoss.forward (f=1, commit d8d298f)"),
    (REPOSITORY, "DistillationLoss.forward (f=2 greedy, commit d8d298f)"),
)
def before_2026(inputs: Inputs, hyper: Hyper) -> Call:
    return released(inputs, hyper, "pre202602")


def released(inputs: Inputs, hyper: Hyper, variant: str) -> Call:
    """Their temperatures divide standardised logits, on which ours would have no effect."""
    if hyper.pop("f") == 2:
        raise Unsupported("greedy matching of as many columns as there are rows, instead of k")
    call = inputs.call(
        "multi_level_ot",
        reduction="sequence",
        variant=variant,
        top_k=hyper.pop("topk", 50),
        log_weight=hyper.pop("kl_weight", 0.1),
        sinkhorn_weight=hyper.pop("sinkhorn_weight", 0.1),
        standardised_student_temperature=hyper.pop("student_temperature", 1.0),
        standardised_teacher_temperature=hyper.pop("teacher_temperature", 1.0),
    )
    call.scale = hyper.pop("distillation_weight", 1.0)
    return skipping_end(call, hyper, "skip_student_eos", "skip_teacher_eos")


@source(PORT)
def port(inputs: Inputs, hyper: Hyper) -> Call:
    """What it is a port of, done right."""
    return inputs.call(
        "multi_level_ot",
        reduction="sequence",
        temperature=hyper.pop("temperature", 2.0),
        top_k=hyper.pop("k", 100),
        log_weight=hyper.pop("log_loss_weight", 0.1),
        sinkhorn_weight=hyper.pop("sikhorn_loss_weight", 0.1),
    )


defect(
    PORT,
    entry=Defect(
        reason="no causal shift: it reads the rows at the answer tokens, not those before them",
        holds=predicts_the_answer,
    ),
)
