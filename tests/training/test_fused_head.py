"""The output layer fused with the losses: the same numbers, without the logits as a whole."""

import pytest
import torch
from torch import Tensor, nn

from kd.errors import LossError
from kd.experiment.methods import BothTexts, Method, MixedText
from kd.losses import Extras, fused_head, load_loss
from kd.losses.conventions import Conventions
from kd.training.head import before_head, require_linear_head
from kd.training.objective import Objective

METHODS = {
    "cross-entropy": Method(loss="none"),
    "stored": Method(loss="uld", weight=1.5, ce_weight=0.7, reduction="sequence"),
    "at a temperature": Method(loss="uld", temperature=2.0, t2_scaling=True),
    "live": Method(
        loss="forward_kl",
        responses=MixedText(policy="mixed", student_fraction=0.0, max_new_tokens=4),
    ),
    "by autograd": Method(loss="akl", responses=MixedText(policy="mixed", max_new_tokens=4)),
    "both texts": Method(loss="distillm2", responses=BothTexts(policy="both", max_new_tokens=4)),
}


def evaluated(setup, *, fused: bool) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The terms of the objective on four rows, and all gradients."""
    setup.model.train()
    setup.model.zero_grad()
    setup.objective._fused = fused
    batch = setup.material.collate(setup.material.train[:4])
    terms = setup.objective(setup.model, batch)
    terms.total.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in setup.model.named_parameters()}
    return terms.values(), gradients


@pytest.mark.parametrize("architecture", ["llama", "t5"])
@pytest.mark.parametrize("name", METHODS)
def test_losses_and_gradients_are_those_of_the_logits(setup, monkeypatch, name, architecture):
    monkeypatch.setattr(fused_head, "HEAD_ROWS", 3)
    built = setup(architecture, METHODS[name])
    expected, slopes = evaluated(built, fused=False)
    found, fused_slopes = evaluated(built, fused=True)
    assert found == pytest.approx(expected, rel=1e-5)
    for parameter, slope in slopes.items():
        close = torch.allclose(fused_slopes[parameter], slope, rtol=1e-4, atol=1e-6)
        assert close, parameter
    assert any(slope.abs().max() > 0 for slope in slopes.values())


def test_the_layer_never_sees_more_than_a_few_rows(setup, monkeypatch):
    monkeypatch.setattr(fused_head, "HEAD_ROWS", 3)
    built = setup("llama")
    sizes = []
    linear = nn.functional.linear

    def watched(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if weight.shape[0] == built.model.config.vocab_size:
            sizes.append(len(rows.reshape(-1, rows.shape[-1])))
        return linear(rows, weight, bias)

    monkeypatch.setattr(nn.functional, "linear", watched)
    evaluated(built, fused=False)
    assert max(sizes) > 3
    sizes.clear()
    evaluated(built, fused=True)
    assert sizes and max(sizes) <= 3


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_is_as_exact_as_where_logits_exist(autocast):
    """Each chunk adds to the layer's gradient, in float32: their number does not matter."""
    draw = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(4, 512, 32, generator=draw), torch.randn(200, 32, generator=draw)
    labels = torch.randint(200, (4, 512), generator=draw)
    loss = load_loss("cross_entropy", Conventions(shift=False))

    def gradient(dtype, fused, autocast=False):
        head = nn.Linear(32, 200, bias=True).to(dtype)
        head.weight.data, head.bias.data = weight.to(dtype), torch.zeros(200, dtype=dtype)
        rows = hidden.to(dtype)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            if fused:
                given = {"teacher_logits": None, "teacher_labels": None, "extras": Extras()}
                term = loss.term(fused_head.placeholder(rows, head), student_labels=labels, **given)
                total, _ = fused_head.sums_through_head(rows, head, [term], [1.0])
            else:
                total = loss(head(rows), None, labels)
        total.backward()
        return head.weight.grad

    dtype = torch.float32 if autocast else torch.bfloat16
    exact = gradient(torch.float64, False)
    plain, fused = (
        ((gradient(dtype, how, autocast) - exact).norm() / exact.norm()).item()
        for how in (False, True)
    )
    assert fused < 1.2 * plain


def test_a_validation_keeps_no_gradient(setup):
    built = setup("llama")
    batch = built.material.collate(built.material.train[:4])
    built.model.train(False)
    values = []
    for fused in (False, True):
        built.objective._fused = fused
        with torch.inference_mode():
            terms = built.objective(built.model, batch)
        assert not terms.total.requires_grad
        values.append(terms.values())
    assert values[1] == pytest.approx(values[0], rel=1e-5)


def test_a_second_pass_through_the_graph_gives_the_same(setup):
    built = setup("llama")
    built.objective._fused = True
    terms = built.objective(built.model, built.material.collate(built.material.train[:4]))
    weight = built.model.get_output_embeddings().weight
    first, second = (
        torch.autograd.grad(factor * terms.total, weight, retain_graph=True)[0]
        for factor in (1.0, 2.0)
    )
    torch.testing.assert_close(2 * first, second)


def test_the_layer_is_itself_again_afterwards(setup):
    model = setup("llama").model
    head, hidden = before_head(model, {"input_ids": torch.tensor([[1, 2, 3]])})
    logits = model(input_ids=torch.tensor([[1, 2, 3]])).logits
    torch.testing.assert_close(head(hidden), logits)


def test_a_loss_on_other_rows_is_refused():
    with pytest.raises(LossError, match="fused_head: false"):
        Objective(
            Method(loss="uld", alignment="spans"), eos_token_id=0, shift=True, fused_head=True
        )


def test_a_model_that_bends_its_logits_is_refused(setup):
    model = setup("llama").model
    require_linear_head(model)
    forward = model.forward

    def capped(**inputs: Tensor) -> object:
        outputs = forward(**inputs)
        outputs.logits = outputs.logits.tanh()
        return outputs

    model.forward = capped
    with pytest.raises(LossError, match="computes them otherwise"):
        require_linear_head(model)
