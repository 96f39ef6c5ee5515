"""Whose text is learned from: policies, sampling, and the teacher that runs beside it."""

from dataclasses import replace

import pytest
import torch

from kd.experiment.methods import AdaptiveText, BothTexts, Method, MixedText
from kd.resume.checkpoints import CheckpointFolder
from kd.training.batches import IGNORED
from kd.training.examples import Example
from kd.training.live import LiveTeacher
from kd.training.responses import Adaptive, Mixed
from kd.training.sampling import Sampler

ON_POLICY = {
    "mixed": Method(loss="reverse_kl", responses=MixedText(policy="mixed", max_new_tokens=5)),
    "both": Method(loss="cald", responses=BothTexts(policy="both", max_new_tokens=5)),
    "adaptive": Method(
        loss="skew_kl",
        responses=AdaptiveText(policy="adaptive", share=0.6, max_new_tokens=5, capacity=4),
    ),
    "scheduled": Method(loss="taid", responses=MixedText(policy="mixed", max_new_tokens=5)),
}


EXAMPLE = Example(id="r0", prompt=[1], target=[2, 3], ends=[2, 2], answer="x")


class Marked:
    """Stands in for a sampler: marks examples instead of sampling."""

    def __call__(self, model, examples, step):
        return [replace(example, by_student=True) for example in examples]


def killed_at(step):
    def advance(done, note):
        if done == step:
            raise InterruptedError

    return advance


@pytest.mark.parametrize("policy", ON_POLICY)
def test_a_resumed_on_policy_run_ends_in_the_same_weights(setup, folder, policy):
    method = ON_POLICY[policy]
    whole = setup(method=method)
    whole.loop.run(CheckpointFolder(folder / "a", "f"), lambda *_: None)
    checkpoints = CheckpointFolder(folder / "b", "f")
    with pytest.raises(InterruptedError):
        setup(method=method).loop.run(checkpoints, killed_at(3))
    resumed = setup(method=method)
    resumed.loop.run(checkpoints, lambda *_: None)
    assert resumed.loop.history == whole.loop.history
    expected = whole.objective.state_dict()
    assert all(
        torch.equal(value, expected[name]) for name, value in resumed.objective.state_dict().items()
    )


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_samples_depend_on_seed_and_step_alone(setup, tokenizer, architecture):
    made = setup(architecture)
    sampler = Sampler(tokenizer, BothTexts(policy="both", max_new_tokens=6), exact=True, seed=1)
    examples = made.material.train
    torch.manual_seed(5)
    first = sampler(made.model, examples, step=2)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1)), "the run's own random numbers must not move"
    torch.manual_seed(6)
    assert sampler(made.model, examples, step=2) == first
    assert sampler(made.model, examples, step=3) != first
    assert all(example.by_student for example in first)
    eos = tokenizer.eos_token_id
    for example in first:
        drawn = tokenizer.decode(example.target[:-1], skip_special_tokens=True)
        assert eos not in example.target[:-1] and "\n" not in drawn.lstrip()
        assert (
            len(example.target) == 6
            or example.target[-1] == eos
            or "\n" in tokenizer.decode(example.target)
        ), "only an end or the limit ends a sample"


def test_the_models_own_generation_settings_do_not_bend_the_samples(setup, tokenizer):
    made = setup()
    allowed = [40, 41]
    configured = made.model.generation_config
    configured.suppress_tokens = [i for i in range(len(tokenizer)) if i not in allowed]
    sampler = Sampler(tokenizer, BothTexts(policy="both", max_new_tokens=6), exact=True, seed=1)
    drawn = sampler(made.model, made.material.train, step=0)
    assert {token for example in drawn for token in example.target} - set(allowed)
    assert made.model.generation_config is configured


def test_where_a_student_ends_its_text_the_teacher_is_asked(setup, tokenizer):
    """EOS that the student drew is scored; EOS that was appended to the teacher's is not."""
    made = setup(method=Method(loss="reverse_kl", responses=MixedText(policy="mixed")))
    eos = tokenizer.eos_token_id
    example = made.material.train[0]
    own = replace(example, by_student=True)
    for given, scored in ((example, False), (own, True)):
        batch = made.material.collate([given])
        assert bool((batch.scored(eos) == eos).any()) is scored
        assert bool((batch.live.scored(eos) == eos).any()) is scored


def test_a_schedule_that_moves_the_target_does_not_choose_the_student(setup, folder):
    """TAID's validation loss is that of the schedule's end: a student that learns wins late."""
    live = MixedText(policy="mixed", student_fraction=0.0)
    method = Method(loss="taid", ce_weight=0.0, responses=live)
    made = setup(method=method, epochs=12, validations=12)
    made.loop.run(CheckpointFolder(folder, "f"), lambda *_: None)
    assert made.loop.best["step"] > made.loop.total_steps // 2


def test_text_of_the_student_is_no_target(setup, tokenizer):
    """On it the cross-entropy is silent: a copied answer must not count a second time."""
    made = setup(method=Method(loss="forward_kl", responses=BothTexts(policy="both")))
    examples = made.material.train[:2]
    copies = [  # as the student would have drawn them, up to its limit
        replace(example, by_student=True, target=example.target[:-1], ends=example.ends[:-1])
        for example in examples
    ]
    doubled = [*examples, *copies]
    once = made.objective(made.model, made.material.collate(examples))
    twice = made.objective(made.model, made.material.collate(doubled))
    assert torch.isclose(once.cross_entropy, twice.cross_entropy)
    assert torch.isclose(once.distillation, twice.distillation)
    student = made.objective(made.model, made.material.collate(doubled[2:]))
    assert student.cross_entropy.item() == 0.0 and student.distillation.item() > 0.0


def test_a_live_teacher_reads_the_students_own_tokens(setup, tokenizer, teacher_folder):
    made = setup()
    prompts = dict.fromkeys([example.id for example in made.material.train], "prompt")
    live = LiveTeacher(teacher_folder, prompts, tokenizer)
    target = [7, 8, 9, tokenizer.eos_token_id]
    example = replace(made.material.train[0], target=target, ends=[1, 2, 3, 3])
    batch = live.collate([example])
    labels = batch.scored(tokenizer.eos_token_id)
    assert labels[labels != IGNORED].tolist() == [7, 8, 9]
    seen = live(batch, features=False)
    ids = batch.inputs["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(seen.logits, live.model(input_ids=ids).logits)
    assert not seen.logits.requires_grad


def test_the_share_of_mixed_steps_is_the_one_asked_for():
    policy = Mixed(Marked(), MixedText(policy="mixed", student_fraction=0.3), seed=0)
    marks = [bool(policy.prepare(None, [EXAMPLE], step)[0].by_student) for step in range(2000)]
    assert 0.27 < sum(marks) / len(marks) < 0.33
    never = Mixed(Marked(), MixedText(policy="mixed", student_fraction=0.0), seed=0)
    always = Mixed(Marked(), MixedText(policy="mixed", student_fraction=1.0), seed=0)
    assert not any(never.prepare(None, [EXAMPLE], step)[0].by_student for step in range(50))
    assert all(always.prepare(None, [EXAMPLE], step)[0].by_student for step in range(50))


def test_the_adaptive_share_grows_when_validation_is_worse_and_only_then():
    policy = Adaptive(Marked(), AdaptiveText(policy="adaptive"), total_steps=10, seed=0)
    shares = []
    for loss in (1.0, 1.05, 1.2, 1.25, 1.35, 0.5, 1.5):
        policy.validated(loss)
        shares.append(policy.state()["share"])
    # Against the reference of the last growth (1.0, then 1.2, then 1.35), not the last loss.
    assert shares == pytest.approx([0.0, 0.0, 0.1, 0.1, 0.2, 0.2, 0.3])


def test_the_adaptive_policy_fills_its_buffer_and_then_replays():
    settings = AdaptiveText(policy="adaptive", share=1.0, capacity=3, replay="increasing")
    policy = Adaptive(Marked(), settings, total_steps=1000, seed=0)
    for step in range(3):
        policy.prepare(None, [replace(EXAMPLE, id=str(step))], step)
    assert [example["id"] for example in policy.state()["buffer"]] == ["0", "1", "2"]
    replayed = policy.prepare(None, [replace(EXAMPLE, id="new")], 3)
    assert replayed[0].id in {"0", "1", "2"}, "at the start of the run next to nothing is fresh"
    copy = Adaptive(Marked(), settings, total_steps=1000, seed=0)
    copy.restore(policy.state())
    assert copy.prepare(None, [EXAMPLE], 4) == policy.prepare(None, [EXAMPLE], 4)
