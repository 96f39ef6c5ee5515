"""What losses need once of both models: sizes, output layers, the text of tokens."""

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kd.losses.catalogue import LossInfo
from kd.losses.setup import Embeddings, Models, ModelSide, Setup, Vocabularies
from kd.models.vocabulary import common_embeddings, token_texts
from kd.training.live import LiveTeacher, features_of


def build_setup(
    info: LossInfo,
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    teacher: LiveTeacher | None,
    total_steps: int,
) -> Setup:
    """Gather what `info` asks for; what it does not ask for stays None."""
    setup = Setup(total_steps=total_steps)
    if teacher is None:
        return setup
    wanted = set(info.setup)
    return Setup(
        vocabularies=_vocabularies(student, tokenizer, teacher)
        if "vocabularies" in wanted
        else None,
        embeddings=_embeddings(student, tokenizer, teacher) if "embeddings" in wanted else None,
        models=Models(_side(student), _side(teacher.model)) if "models" in wanted else None,
        total_steps=total_steps,
    )


def _vocabularies(
    student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, teacher: LiveTeacher
) -> Vocabularies:
    return Vocabularies(
        student=token_texts(tokenizer, student.config.vocab_size),
        teacher=token_texts(teacher.tokenizer, teacher.model.config.vocab_size),
    )


def _embeddings(
    student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, teacher: LiveTeacher
) -> Embeddings:
    layer = teacher.model.get_input_embeddings()
    assert isinstance(layer, torch.nn.Embedding)
    own, other = common_embeddings(
        tokenizer, teacher.tokenizer, layer.weight.detach(), width=student.config.vocab_size
    )
    return Embeddings(own, other)


def _side(model: PreTrainedModel) -> ModelSide:
    config = model.config.get_text_config(decoder=True)
    output: torch.nn.Linear = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    # A T5 with tied embeddings divides what enters its output layer by the root of its width.
    divided = getattr(model.config, "scale_decoder_outputs", False)
    scale = config.hidden_size**-0.5 if divided else 1.0
    hidden, logits = _probe(model)
    found = scale * hidden[-1].float() @ output.weight.detach().float().T
    # Models in half precision round their own logits.
    rounding = torch.finfo(logits.dtype).eps
    rtol, atol = max(1e-3, 4 * rounding), max(1e-4, rounding) * float(logits.abs().max())
    return ModelSide(
        hidden_sizes=tuple(layer.shape[-1] for layer in hidden),
        output=output.weight,
        scale=scale,
        plain=torch.allclose(found, logits.float(), rtol=rtol, atol=atol),
    )


@torch.no_grad()
def _probe(model: PreTrainedModel) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Hidden states of every layer and logits on two tokens, to see how they hang together."""
    ids = torch.tensor([[0, 1]], device=model.device)
    inputs = {"input_ids": ids}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids
    training = model.training
    outputs = model.train(False)(**inputs, output_hidden_states=True)
    model.train(training)
    return features_of(model, outputs).hidden, outputs.logits
