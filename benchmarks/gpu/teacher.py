"""A teacher of seven billion weights: generation, and extraction of its logits."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import GenerationConfig

from benchmarks.gpu.device import Figure, Limits, Machine
from benchmarks.gpu.models import examples, parameters, teacher
from kd.logits import LogitWriter
from kd.logits.rows import AnswerBatch
from kd.teacher.forward import Encoded, answer_logits


def figures(machine: Machine, limits: Limits) -> Iterator[Figure]:
    model = teacher(machine)
    shape = f"Llama, {parameters(model) / 1e9:.2f} G weights"
    for cache in ("dynamic", "static") if machine.on_gpu else ("dynamic",):
        yield from _generation(machine, limits, model, shape, cache)
    yield from _extraction(machine, limits, model, shape)


@torch.inference_mode()
def _generation(machine: Machine, limits: Limits, model, shape: str, cache: str):
    sizes = machine.sizes
    config = GenerationConfig(
        max_new_tokens=sizes.answer,
        min_new_tokens=sizes.answer,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=0,
        **({"cache_implementation": "static"} if cache == "static" else {}),
    )

    def generate(rows: int) -> float:
        ids = torch.randint(1, sizes.teacher_vocabulary, (rows, sizes.prompt)).to(machine.device)
        mask = torch.ones_like(ids)
        return machine.seconds(
            lambda: model.generate(ids, attention_mask=mask, generation_config=config), repeats=1
        )

    seconds, rows, note = machine.fitting(generate, sizes.generated)
    size = next(model.parameters()).element_size()
    # Every step reads all weights, and on average the keys and values of half the answer more.
    width, layers = model.config.hidden_size, model.config.num_hidden_layers
    kept = 2 * layers * width * size * rows * (sizes.prompt + sizes.answer / 2)
    step = (parameters(model) * size + kept) / limits.bandwidth
    prompt = 2 * parameters(model) * rows * sizes.prompt / limits.flops
    best = rows * sizes.answer / (prompt + sizes.answer * step)
    speed = rows * sizes.answer / seconds
    case = f"{shape}, {rows} rows, {cache} cache"
    yield Figure("teacher", case, "generation", speed, "tokens/s", best, note)
    yield Figure("teacher", case, "peak memory", machine.peak(), "GiB")


@torch.inference_mode()
def _extraction(machine: Machine, limits: Limits, model, shape: str):
    sizes = machine.sizes
    rows = [
        Encoded(row.prompt, row.target[:-1], row.ends[:-1])
        for row in examples(machine, sizes.batch, sizes.teacher_vocabulary)
    ]

    def forward(count: int) -> float:
        return machine.seconds(lambda: answer_logits(model, rows[:count]))

    seconds, count, note = machine.fitting(forward, len(rows))
    tokens = count * (sizes.prompt + sizes.answer)
    best = limits.flops / (2 * parameters(model))
    case = f"{shape}, {count} rows"
    yield Figure("teacher", case, "teacher-forced pass", tokens / seconds, "tokens/s", best, note)
    with tempfile.TemporaryDirectory() as folder:
        stored = machine.seconds(lambda: _store(model, rows[:count], Path(folder)), repeats=1)
    speed = count * sizes.answer / stored
    yield Figure("teacher", case, "extraction with its store", speed, "answer tokens/s", note=note)
    yield Figure("teacher", case, "peak memory", machine.peak(), "GiB")


def _store(model, rows: list[Encoded], folder: Path) -> None:
    place = folder / f"store-{len(list(folder.iterdir()))}"
    with LogitWriter(place, vocabulary=model.config.vocab_size, epsilon=1e-3) as writer:
        batch = AnswerBatch(
            ids=[f"r{row}" for row in range(len(rows))],
            lengths=[len(row.answer) for row in rows],
            tokens=torch.tensor([token for row in rows for token in row.answer]),
            ends=torch.tensor([end for row in rows for end in row.ends]),
        )
        writer.add_batch(batch, answer_logits(model, rows))
