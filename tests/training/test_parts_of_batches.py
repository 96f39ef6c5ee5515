"""However a batch is cut (micro-batches, a ragged end), the step is that of the whole.

In float64: Adam's first steps are the signs of gradients, which rounding may turn.
"""

import pytest
import torch

from kd.experiment.methods import BothTexts, Method, MixedText
from kd.experiment.schema import Training
from kd.experiment.stages import DistillSpec
from kd.resume.checkpoints import CheckpointFolder
from kd.training.objective import Counts

METHODS = {
    "cross-entropy": Method(loss="none"),
    "by tokens": Method(loss="uld", weight=1.5),
    "by sequences": Method(loss="uld", weight=1.5, reduction="sequence"),
    "live teacher": Method(
        loss="forward_kl", responses=MixedText(policy="mixed", student_fraction=0.0)
    ),
    "both texts": Method(loss="distillm2", responses=BothTexts(policy="both", max_new_tokens=4)),
    "hidden states": Method(
        loss="hidden_state", responses=MixedText(policy="mixed", student_fraction=0.0)
    ),
}


def trained(setup, folder, name, method, **training):
    """Curve and weights of a run: two steps an epoch, of four rows and of two."""
    made = setup(method=method, **training)
    made.model.double()
    made.objective.double()
    made.loop.run(CheckpointFolder(folder / name, "f"), lambda *_: None)
    return made.loop.history, dict(made.model.state_dict())


def assert_equal_runs(found, expected):
    (curve, weights), (whole_curve, whole_weights) = found, expected
    assert len(curve) == len(whole_curve)
    for record, whole in zip(curve, whole_curve, strict=True):
        assert record == pytest.approx(whole, rel=1e-6, abs=1e-6)
    for name, weight in weights.items():
        torch.testing.assert_close(weight, whole_weights[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("micro", [1, 2, 3])
@pytest.mark.parametrize("name", METHODS)
def test_micro_batches_add_up_to_the_batch(setup, folder, name, micro):
    settings = {"cycle_momentum": False, "epochs": 2}
    whole = trained(setup, folder, "whole", METHODS[name], **settings)
    parts = trained(setup, folder, "parts", METHODS[name], micro_batch=micro, **settings)
    assert_equal_runs(parts, whole)


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_so_they_do_with_a_fused_head(setup, folder, architecture):
    runs = []
    for settings in ({}, {"micro_batch": 3}):
        made = setup(architecture, METHODS["by tokens"], **settings)
        made.objective._fused = True
        made.model.double()
        made.loop.run(CheckpointFolder(folder / str(settings), "f"), lambda *_: None)
        runs.append((made.loop.history, dict(made.model.state_dict())))
    assert_equal_runs(*reversed(runs))


def test_the_mean_of_the_parts_means_would_be_another(setup):
    """The rows' answers differ in length, so that the tests above can tell."""
    made = setup(method=METHODS["by tokens"])
    rows = made.material.train
    lengths = {len(row.target) for row in rows[:4]}
    assert len(lengths) > 1
    whole = made.objective(made.model, made.material.collate(rows[:4])).values()
    parts = [made.objective(made.model, made.material.collate([row])).values() for row in rows[:4]]
    means = sum(part["cross_entropy"] for part in parts) / 4
    assert means != pytest.approx(whole["cross_entropy"], rel=1e-4)


def test_exactness_is_that_of_the_whole_batch(setup, folder):
    """The store is whole here: what it leaves open is rounding, in parts and at once."""
    curves = [
        trained(setup, folder, str(micro), METHODS["by tokens"], micro_batch=micro)[0]
        for micro in (None, 1)
    ]
    for whole, parts in zip(*curves, strict=True):
        assert {key for key in whole if "error" in key} == {key for key in parts if "error" in key}


def test_a_batch_without_a_scored_token_counts_nothing_and_moves_nothing(setup):
    made = setup()
    batch = made.material.collate(made.material.train[:2]).unscored()
    counts = made.objective.counts(made.model, batch)
    assert counts.cross_entropy == 0
    made.model.zero_grad()
    made.objective(made.model, batch, Counts(5, 5)).total.backward()
    assert all(
        parameter.grad is None or not parameter.grad.any() for parameter in made.model.parameters()
    )


def test_a_specification_without_the_newer_keys_is_as_it_was():
    training = Training(learning_rate=1e-3)
    written = training.model_dump(mode="json")
    assert set(written) == {
        *("epochs batch_size learning_rate scheduler warmup_fraction weight_decay".split()),
        *("cycle_momentum max_length max_grad_norm validations select".split()),
        *("checkpoint_steps fused_head certificate_steps".split()),
    }
    given = training.model_copy(update={"micro_batch": 2, "replicas": 4})
    written = given.model_dump(mode="json")
    assert (written["micro_batch"], written["replicas"]) == (2, 4)
    assert Training.model_validate(written) == given
    spec = DistillSpec(
        dataset="d", method=Method(loss="none"), training=training, fraction=100, seed=0
    )
    assert "processes" not in spec.model_dump(mode="json")["training"]
