"""Every loss trains a real student: a decoder and an encoder-decoder, as a run would load them."""

from dataclasses import replace

import pytest
import torch

from kd.experiment.methods import BothTexts, Method, TeacherText
from kd.experiment.models import TokenizerSpec
from kd.experiment.requirements import reads_logits, reads_teacher_model, runs_teacher
from kd.logits import LogitReader, LogitWriter
from kd.losses import available_losses, loss_info
from kd.models.architectures import Vocabulary, build_model
from kd.models.offsets import encode_answer_with_ends
from kd.models.tokenizers import train_tokenizer
from kd.training.batches import Collator
from kd.training.examples import build_examples
from kd.training.live import LiveTeacher
from kd.training.objective import LiveCollator, Objective
from kd.training.setup import build_setup

LOSSES = [name for name in available_losses() if name != "cross_entropy"]


def method_for(name: str) -> Method:
    """The loss with its defaults, on the texts that it needs."""
    both = "student_responses" in loss_info(name).needs
    responses = BothTexts(policy="both") if both else TeacherText()
    return Method(loss=name, responses=responses)


@pytest.fixture(scope="module")
def other_tokenizer():
    """Cuts the same texts differently."""
    texts = ["the red cat and the blue cat", "black gold white", "grey pink green cat"] * 3
    return train_tokenizer(TokenizerSpec(algorithm="metaspace_bpe", vocabulary=300), texts)


@pytest.fixture(scope="module")
def full_store(tmp_path_factory, answers, tokenizer, teacher_folder):
    """The teacher's own distributions, whole."""
    teacher = LiveTeacher(teacher_folder, {}, tokenizer)
    folder = tmp_path_factory.mktemp("full") / "store"
    with LogitWriter(folder, vocabulary=teacher.model.config.vocab_size, epsilon=0.0) as writer:
        for answer in answers:
            ids, ends = encode_answer_with_ends(tokenizer, answer.answer)
            with torch.no_grad():
                logits = teacher.model(torch.tensor([ids])).logits[0]
            writer.add(answer.id, torch.tensor(ids), logits, ends=torch.tensor(ends))
    return LogitReader(folder)


@pytest.mark.parametrize("architecture", ["llama", "t5"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_step_reaches_the_students_weights_and_not_the_teachers(
    name, architecture, rows, answers, tokenizer, other_tokenizer, full_store, teacher_folder
):
    info, method = loss_info(name), method_for(name)
    own = tokenizer if info.same_vocabulary else other_tokenizer
    model = build_model(architecture, "tiny", Vocabulary.of(own), context=128, seed=1)
    encoder_decoder = architecture == "t5"
    found = build_examples(
        {row.id: row for row in rows},
        answers,
        own,
        encoder_decoder=encoder_decoder,
        max_length=128,
    )
    prompts = {answer.id: answer.prompt for answer in answers}
    teacher = None
    if reads_teacher_model(method):
        teacher = LiveTeacher(teacher_folder, prompts, own)
    live = teacher if runs_teacher(method) else None
    if info.needs_live_teacher:
        model.set_attn_implementation("eager")
        teacher.model.set_attn_implementation("eager")
    objective = Objective(
        method,
        eos_token_id=own.eos_token_id,
        shift=not encoder_decoder,
        setup=build_setup(info, model, own, teacher, 10),
        live=live,
    )
    store = full_store if reads_logits(method) else None
    collate = Collator(own.pad_token_id, encoder_decoder=encoder_decoder, store=store)
    if live is not None:
        collate = LiveCollator(collate, live)
    examples = found.examples[:4]
    if "student_responses" in info.needs:
        examples = [*examples, *(replace(example, by_student=True) for example in examples)]
    model.train()
    terms = objective(model, collate(examples))
    assert terms.distillation.isfinite() and terms.distillation.item() > 0
    terms.distillation.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert sum(gradient.abs().sum().item() for gradient in gradients) > 0
    objective.step(terms.values())
    if teacher is not None:
        assert all(parameter.grad is None for parameter in teacher.model.parameters())
