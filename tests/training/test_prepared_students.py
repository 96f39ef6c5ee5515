"""Settings that save memory or time leave the student what it is."""

import pytest
import torch

from kd.experiment.methods import Method
from kd.resume.checkpoints import CheckpointFolder
from kd.training.memory import Settings, Shapes, fitting
from kd.training.student import prepare_student

ULD = Method(loss="uld", weight=1.5)
KINDS = ["llama", "mistral", "opt", "gpt_neox", "bloom", "t5"]


def run(made, folder):
    made.loop.run(CheckpointFolder(folder, "f"), lambda *_: None)
    return made.loop.history, dict(made.model.state_dict())


@pytest.mark.parametrize("architecture", KINDS)
def test_checkpointed_activations_give_the_same_student(setup, folder, architecture):
    plain = run(setup(architecture, ULD), folder / "plain")
    made = setup(architecture, ULD, gradient_checkpointing=True)
    prepare_student(made.model, made.loop._training)
    curve, weights = run(made, folder / "checkpointed")
    for found, expected in zip(curve, plain[0], strict=True):
        # A T5 without a cache computes its attention in another order.
        assert found == (pytest.approx(expected, rel=1e-3) if architecture == "t5" else expected)
    if architecture != "t5":
        assert all(torch.equal(weights[name], weight) for name, weight in plain[1].items())


def test_checkpointing_runs_the_layers_twice(setup):
    """What the test above compares is really computed in another way."""
    calls = []
    made = setup("llama", ULD, gradient_checkpointing=True)
    prepare_student(made.model, made.loop._training)
    attention = made.model.model.layers[0].self_attn
    attention.register_forward_pre_hook(lambda *call: calls.append(1))
    made.model.train()
    made.objective(made.model, made.material.collate(made.material.train[:2])).total.backward()
    assert len(calls) == 2


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_in_bfloat16_weights_and_losses_stay_float32(setup, folder, architecture, fused):
    plain = run(setup(architecture, ULD), folder / "plain")[0]
    made = setup(architecture, ULD, precision="bfloat16")
    made.objective._fused = fused
    seen = []
    made.model.get_output_embeddings().register_forward_hook(
        lambda layer, given, out: seen.append(out.dtype)
    )
    curve, weights = run(made, folder / "half")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in made.model.parameters())
    assert fused or set(seen) == {torch.bfloat16}
    assert curve != plain, "nothing was rounded"
    for half, full in [(curve[0], plain[0])]:
        assert half["loss"] == pytest.approx(full["loss"], rel=2e-2)
        assert half["gradient_norm"] == pytest.approx(full["gradient_norm"], rel=1e-1)


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_a_fused_head_in_bfloat16_has_the_gradient_of_the_logits_in_bfloat16(setup, architecture):
    made = setup(architecture, ULD)
    batch = made.material.collate(made.material.train[:4])
    gradients = []
    for fused in (False, True):
        made.objective._fused = fused
        made.model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            terms = made.objective(made.model, batch)
        terms.total.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in made.model.parameters()]))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.999


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_what_is_compiled_is_the_body_and_the_student_stays_loadable(
    setup, folder, architecture, monkeypatch
):
    plain = run(setup(architecture, ULD), folder / "plain")
    made = setup(architecture, ULD, compile=True)
    compiled = []

    def compile_eagerly(module, **settings):
        compiled.append(module)
        module._compiled_call_impl = torch.compile(module._call_impl, backend="eager", **settings)

    monkeypatch.setattr(torch.nn.Module, "compile", compile_eagerly)
    prepare_student(made.model, made.loop._training)
    assert compiled and all(module is not made.model for module in compiled)
    curve, weights = run(made, folder / "compiled")
    assert weights.keys() == plain[1].keys()
    for found, expected in zip(curve, plain[0], strict=True):
        assert found == pytest.approx(expected, rel=1e-3)


# --- out of memory ---------------------------------------------------------------------------

PYTHIA = Shapes(
    parameters=405_000_000,
    trained=405_000_000,
    layers=24,
    width=1024,
    vocabulary=50_304,
    rows=32,
    length=1024,
)
PLAIN = Settings(micro_batch=32, gradient_checkpointing=False, fused_head=False, half=False)
GIB = 2.0**30


def test_what_is_suggested_fits_by_the_estimate_and_less_would_not_be_needed():
    found = fitting(PYTHIA, PLAIN, 40 * GIB)
    assert found
    for settings in found:
        assert settings.bytes(PYTHIA) <= 0.9 * 40 * GIB
        more = Settings(**{**vars(settings), "micro_batch": settings.micro_batch * 2})
        assert settings.micro_batch == 32 or more.bytes(PYTHIA) > 0.9 * 40 * GIB


def test_the_estimate_is_corrected_by_a_failure_that_it_did_not_foresee():
    """On 400 GiB everything should fit; it did not, so that less is suggested all the same."""
    assert PLAIN.bytes(PYTHIA) < 400 * GIB
    assert all(
        settings.micro_batch < 32 or settings.gradient_checkpointing or settings.fused_head
        for settings in fitting(PYTHIA, PLAIN, 400 * GIB)
    )


def test_nothing_is_suggested_where_the_weights_alone_do_not_fit():
    assert fitting(PYTHIA, PLAIN, 4 * GIB) == []


def test_every_saving_is_a_saving():
    for name, value in {
        "micro_batch": 16,
        "gradient_checkpointing": True,
        "fused_head": True,
    }.items():
        assert Settings(**{**vars(PLAIN), name: value}).bytes(PYTHIA) < PLAIN.bytes(PYTHIA)


def test_out_of_memory_is_one_sentence_with_the_rows_and_what_would_fit(setup, folder, monkeypatch):
    from kd.errors import TrainingError
    from kd.training import memory

    made = setup(method=ULD, batch_size=4)
    monkeypatch.setattr(memory, "_device_memory", lambda device: (3e6, "a small device"))
    monkeypatch.setattr(
        type(made.objective),
        "__call__",
        lambda *_, **__: (_ for _ in ()).throw(torch.OutOfMemoryError),
    )
    with pytest.raises(TrainingError) as refused:
        made.loop.run(CheckpointFolder(folder, "f"), lambda *_: None)
    said = str(refused.value)
    assert said.startswith("out of memory on a small device (0.0 GiB): 4 rows of up to ")
    assert "under 'training', 'micro_batch: " in said or "No setting of 'training'" in said
    assert "\n" not in said
