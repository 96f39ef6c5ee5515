"""The loop: resuming changes nothing, the best student wins, and a divergence stops it."""

import pytest
import torch

from kd.errors import TrainingError
from kd.experiment.methods import Method
from kd.resume.checkpoints import CheckpointFolder
from kd.training.batches import in_order
from kd.training.loop import Material


def quiet(step: int, note: str) -> None:
    pass


class Killed(Exception):
    pass


def killed_at(step):
    def advance(done, note):
        if done == step:
            raise Killed

    return advance


@pytest.mark.parametrize("architecture", ["llama", "opt", "t5"])
@pytest.mark.parametrize("step", [2, 3, 5])
def test_a_resumed_run_ends_in_the_same_weights(setup, folder, architecture, step):
    whole = setup(architecture)
    whole.loop.run(CheckpointFolder(folder / "a", "f"), quiet)

    checkpoints = CheckpointFolder(folder / "b", "f")
    with pytest.raises(Killed):
        setup(architecture).loop.run(checkpoints, killed_at(step))
    resumed = setup(architecture)
    with torch.no_grad():  # a resumed run must not depend on the fresh weights
        for parameter in resumed.model.parameters():
            parameter.add_(1.0)
    resumed.loop.run(checkpoints, quiet)

    expected = whole.loop.selected_weights()
    for name, weight in resumed.loop.selected_weights().items():
        assert torch.equal(weight, expected[name]), name
    assert resumed.loop.history == whole.loop.history


def test_a_damaged_checkpoint_is_passed_over(setup, folder, capsys):
    checkpoints = CheckpointFolder(folder, "f")
    with pytest.raises(Killed):
        setup().loop.run(checkpoints, killed_at(3))
    (newest,) = checkpoints.path.iterdir()
    file = newest / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    assert checkpoints.newest() is None
    assert "skipping damaged checkpoint" in capsys.readouterr().err


def test_another_fingerprint_never_resumes(setup, folder):
    with pytest.raises(Killed):
        setup().loop.run(CheckpointFolder(folder, "first"), killed_at(3))
    assert CheckpointFolder(folder, "second").newest() is None


def test_the_selected_student_has_the_lowest_validation_loss(setup, folder):
    made = setup(epochs=10, learning_rate=0.1, validations=20, cycle_momentum=False)
    made.loop.run(CheckpointFolder(folder, "f"), quiet)
    losses = [entry["validation_loss"] for entry in made.loop.history if "validation_loss" in entry]
    assert min(losses) < losses[-1], "the case must tell the best from the last"
    made.model.load_state_dict(dict(made.loop.selected_weights()))
    assert loss_over(made, made.material.validation) == pytest.approx(min(losses), rel=1e-6)


def loss_over(made, rows):
    """Mean objective of the model as it is, over `rows`."""
    made.model.eval()
    with torch.inference_mode():
        sums = [
            len(indices)
            * made.objective(made.model, made.material.collate([rows[i] for i in indices])).total
            for indices in in_order(len(rows), 4)
        ]
    return sum(sums).item() / len(rows)


def test_selection_is_by_validation_where_the_test_rows_would_select_another(setup, folder):
    """The run keeps the student that is best on validation rows, not the one best on others."""
    settings = {"epochs": 10, "learning_rate": 0.1, "validations": 20, "cycle_momentum": False}
    made, other = setup(**settings), setup(**settings)
    validation, test = made.material.validation, made.material.train[:2]
    other.loop._material = Material(other.material.train, test, other.material.collate)
    made.loop.run(CheckpointFolder(folder / "a", "f"), quiet)
    other.loop.run(CheckpointFolder(folder / "b", "f"), quiet)
    chosen, by_test = (one.loop.best["step"] for one in (made, other))
    assert chosen != by_test, "the case must tell validation from test"

    made.model.load_state_dict(dict(made.loop.selected_weights()))
    other.model.load_state_dict(dict(other.loop.selected_weights()))
    assert loss_over(made, validation) < loss_over(other, validation)
    assert loss_over(made, test) > loss_over(other, test)


def test_a_non_finite_loss_names_step_and_rows_and_keeps_the_checkpoint(setup, folder):
    made = setup(epochs=4)
    checkpoints = CheckpointFolder(folder, "f")

    def poison(step, note):
        if step == 2:
            with torch.no_grad():
                next(made.model.parameters()).fill_(float("nan"))

    told = r"the loss is nan at step 3 of 8 \(rows r\d.*; cross_entropy nan, distillation nan\)"
    with pytest.raises(TrainingError, match=told):
        made.loop.run(checkpoints, poison)
    kept = checkpoints.newest()
    assert kept is not None and kept.step == 2
    assert all(torch.isfinite(tensor).all() for tensor in kept.tensors["model"].values())


def test_the_part_of_a_loss_that_is_not_finite_is_told(setup, folder, monkeypatch):
    made = setup(epochs=1)
    compute = type(made.objective).__call__

    def spoiled(objective, model, batch, *counts, **given):
        terms = compute(objective, model, batch, *counts, **given)
        bad = terms.distillation * float("inf")
        return type(terms)(terms.cross_entropy + bad, terms.cross_entropy, bad)

    monkeypatch.setattr(type(made.objective), "__call__", spoiled)
    with pytest.raises(TrainingError, match=r"; cross_entropy \d\.\d+, distillation inf\)"):
        made.loop.run(CheckpointFolder(folder, "f"), quiet)


def test_a_non_finite_validation_loss_stops_the_run(setup, folder, monkeypatch):
    made = setup(epochs=4, validations=8)
    compute = type(made.objective).__call__

    def spoiled(objective, model, batch, *counts, **given):
        terms = compute(objective, model, batch, *counts, **given)
        return (
            terms if model.training else type(terms)(terms.total * float("nan"), *[terms.total] * 2)
        )

    monkeypatch.setattr(type(made.objective), "__call__", spoiled)
    with pytest.raises(TrainingError, match="the validation loss is nan"):
        made.loop.run(CheckpointFolder(folder, "f"), quiet)


def test_two_loops_from_one_seed_are_equal_and_learn(setup, folder):
    first, second = setup(epochs=10), setup(epochs=10)
    first.loop.run(CheckpointFolder(folder / "a", "f"), quiet)
    second.loop.run(CheckpointFolder(folder / "b", "f"), quiet)
    assert first.loop.history == second.loop.history
    curve = [entry["loss"] for entry in first.loop.history if "loss" in entry]
    assert curve[-1] < 0.8 * curve[0]


def test_teacher_text_is_cross_entropy_alone(setup, folder):
    made = setup(method=Method(loss="none"))
    made.loop.run(CheckpointFolder(folder, "f"), quiet)
    step = made.loop.history[0]
    assert step["loss"] == step["cross_entropy"]
    assert "distillation" not in step
