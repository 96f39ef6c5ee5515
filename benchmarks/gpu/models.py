"""Models of real shapes with random weights, made on the device that needs them."""

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.modeling_utils import PreTrainedModel

from benchmarks.gpu.device import Machine
from kd.training.examples import Example


def teacher(machine: Machine) -> LlamaForCausalLM:
    """A Llama in half precision on a GPU, ready to answer."""
    config = LlamaConfig(vocab_size=machine.sizes.teacher_vocabulary, **machine.sizes.teacher)
    return _made(LlamaForCausalLM, config, machine, machine.dtype).eval().requires_grad_(False)


def student(machine: Machine) -> GPTNeoXForCausalLM:
    """A GPT-NeoX in float32: these are the weights that are trained."""
    config = GPTNeoXConfig(vocab_size=machine.sizes.student_vocabulary, **machine.sizes.student)
    return _made(GPTNeoXForCausalLM, config, machine, torch.float32)


def _made(kind: type, config: object, machine: Machine, dtype: torch.dtype) -> PreTrainedModel:
    torch.manual_seed(0)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with machine.device:
            return kind(config)
    finally:
        torch.set_default_dtype(usual)


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def examples(machine: Machine, rows: int, vocabulary: int) -> list[Example]:
    """Random rows; the last token of each is the end of text, number 0."""
    sizes, draw = machine.sizes, torch.Generator().manual_seed(2)
    found = []
    for row in range(rows):
        length = sizes.prompt + sizes.answer
        text = torch.randint(1, vocabulary, (length,), generator=draw).tolist()
        target = [*text[sizes.prompt :], 0]
        ends = list(range(len(target)))
        found.append(Example(f"r{row}", text[: sizes.prompt], target, ends, "-"))
    return found
