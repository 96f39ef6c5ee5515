"""What `logit_store.py` measures: stores at fixed levels of sharpness, and a pair of models."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kd.logits import AnswerBatch, LogitReader, LogitWriter, collate
from kd.losses import distillation_loss
from kd.models.architectures import Vocabulary, build_model
from kd.models.encoding import encode_prompt, pad_batch
from kd.models.loading import load_model
from kd.models.offsets import encode_answer_with_ends
from kd.teacher.answers import read_answers
from kd.teacher.extraction import LOGIT_BUDGET, TOKEN_BUDGET
from kd.teacher.forward import Encoded, answer_logits, batches

EPSILONS = (1e-3, 1e-4)
ANSWER = 64  # tokens of a synthetic answer
AT_ONCE = 256  # tokens whose logits exist at a time


@dataclass(frozen=True)
class Level:
    """Logits ~ N(0, sharpness^2) over a vocabulary."""

    sharpness: float
    vocabulary: int

    @property
    def name(self) -> str:
        return f"N(0, {self.sharpness:g}^2)"


LEVELS = [
    Level(sharpness, vocabulary)
    for vocabulary in (32_000, 128_256)
    for sharpness in (24.0, 16.0, 12.0, 9.0, 6.0)
]


def sizes_of_level(level: Level, tokens: int, scratch: Path) -> list[dict[str, Any]]:
    """A row for each epsilon; `tokens` answer tokens."""

    def given() -> Iterator[tuple[AnswerBatch, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        for first in range(0, tokens, AT_ONCE):
            count = min(AT_ONCE, tokens - first)
            logits = level.sharpness * torch.randn(count, level.vocabulary, generator=generator)
            own = torch.randint(level.vocabulary, (count,), generator=generator)
            lengths = [min(ANSWER, count - start) for start in range(0, count, ANSWER)]
            ids = [f"row-{first}-{number}" for number in range(len(lengths))]
            yield AnswerBatch(ids, lengths, own, 4 * torch.arange(count)), logits

    return _sizes(level.name, level.vocabulary, given, scratch)


def sizes_of_teacher(
    name: str, model_path: Path, answers: Path, scratch: Path
) -> list[dict[str, Any]]:
    """A row for each epsilon; a trained teacher on its own answers."""
    model, tokenizer = load_model(model_path)
    encoder_decoder = bool(model.config.is_encoder_decoder)
    answered = [answer for answer in read_answers(answers) if answer.answer]
    rows = [
        Encoded(
            encode_prompt(tokenizer, answer.prompt, encoder_decoder),
            *encode_answer_with_ends(tokenizer, answer.answer),
        )
        for answer in answered
    ]

    def given() -> Iterator[tuple[AnswerBatch, Tensor]]:
        with torch.inference_mode():
            for batch in batches(rows, TOKEN_BUDGET, LOGIT_BUDGET, model.config.vocab_size):
                chosen = [rows[place] for place in batch]
                yield answer_batch(batch, chosen), answer_logits(model, chosen)

    return _sizes(name, model.config.vocab_size, given, scratch)


def answer_batch(places: list[int], rows: list[Encoded]) -> AnswerBatch:
    return AnswerBatch(
        ids=[f"row-{place}" for place in places],
        lengths=[len(row.answer) for row in rows],
        tokens=torch.tensor([token for row in rows for token in row.answer]),
        ends=torch.tensor([end for row in rows for end in row.ends]),
    )


def _sizes(
    name: str,
    vocabulary: int,
    given: Callable[[], Iterator[tuple[AnswerBatch, Tensor]]],
    scratch: Path,
) -> list[dict[str, Any]]:
    made = {
        (epsilon, ids): LogitWriter(
            scratch / f"{epsilon}-{ids}", vocabulary=vocabulary, epsilon=epsilon, ids=ids
        )
        for epsilon in EPSILONS
        for ids in (True, False)
    }
    for writer in made.values():
        writer.__enter__()
    for answers, logits in given():
        for writer in made.values():
            writer.add_batch(answers, logits)
    for writer in made.values():
        writer.__exit__(None, None, None)
    found = []
    for epsilon in EPSILONS:
        reader = LogitReader(scratch / f"{epsilon}-True")
        counts = torch.cat([reader[row_id].offsets.diff() for row_id in reader]).double()
        both = [_bytes(scratch / f"{epsilon}-{ids}") / len(counts) for ids in (True, False)]
        found.append(
            {
                "teacher": name,
                "vocabulary": vocabulary,
                "epsilon": epsilon,
                "tokens": len(counts),
                "mean_k": counts.mean().item(),
                "max_k": int(counts.max()),
                "with_ids": both[0],
                "without_ids": both[1],
                "per_entry": both[0] / counts.mean().item(),
                "dense_fp16": 2 * vocabulary,
                "top_100": 100 * (4 + 2),
            }
        )
    return found


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


@dataclass(frozen=True)
class Pair:
    """A teacher and a student of random weights, and the rows that they read."""

    name: str
    teacher: dict[str, int]  # settings of a Llama
    student: str  # a size of `kd.models.architectures`
    vocabulary: int
    sharpness: float  # to which the teacher's logits are scaled: random weights are flat
    rows: int = 32
    prompt: int = 96
    answer: int = 32
    batch: int = 8  # of the student


def _llama(width: int, depth: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "intermediate_size": width * 8 // 3,
        "num_hidden_layers": depth,
        "num_attention_heads": width // 64,
        "num_key_value_heads": width // 64,
    }


# Micro's largest teacher is as narrow as `large`: there the forward pass costs next to nothing.
FULL = (
    Pair("128 wide, V 2000", _llama(128, 4), "small", 2_000, 12.0),
    Pair("768 wide, V 32000", _llama(768, 12), "large", 32_000, 12.0, rows=16),
)
QUICK = (Pair("64 wide, V 500", _llama(64, 1), "tiny", 500, 12.0, rows=8),)


class Workload:
    """The same rows written, read, trained on and extracted."""

    def __init__(self, pair: Pair, scratch: Path) -> None:
        self.pair = pair
        generator = torch.Generator().manual_seed(0)
        length = pair.prompt + pair.answer
        ids = torch.randint(5, pair.vocabulary, (pair.rows, length), generator=generator)
        self.rows = [
            Encoded(row[: pair.prompt], row[pair.prompt :], list(range(1, pair.answer + 1)))
            for row in ids.tolist()
        ]
        vocabulary = Vocabulary(pair.vocabulary, pad=0, eos=1, bos=2)
        self.student = build_model("opt", pair.student, vocabulary, context=length, seed=1)
        self.teacher = build_teacher(pair, length)
        self.student.train()
        self.optimizer = torch.optim.AdamW(self.student.parameters(), lr=1e-4)
        with torch.inference_mode():
            self.batches = list(batches(self.rows, TOKEN_BUDGET, LOGIT_BUDGET, pair.vocabulary))
            self.logits = [
                answer_logits(self.teacher, self._chosen(batch)) for batch in self.batches
            ]
        self.folder = scratch / pair.name.replace(" ", "-")
        self._write("read", self.logits)

    @property
    def tokens(self) -> dict[str, int]:
        """Answer tokens of each measurement."""
        every = self.pair.rows * self.pair.answer
        return dict.fromkeys(self.prepare, every) | {
            "training": self.pair.batch * self.pair.answer,
        }

    @property
    def prepare(self) -> dict[str, Callable[[], Callable[[], object]]]:
        """What is measured, by name."""
        return {
            "training": lambda: self._train,
            "write": lambda: lambda: self._write("write", self.logits),
            "read": lambda: self._read,
            "forward, whole": lambda: lambda: self._forward(whole=True),
            "forward, answers": lambda: lambda: self._forward(whole=False),
            "extraction": lambda: self._extract,
        }

    def _chosen(self, batch: list[int]) -> list[Encoded]:
        return [self.rows[place] for place in batch]

    def _logits(self, batch: list[int]) -> Tensor:
        return answer_logits(self.teacher, self._chosen(batch))

    def _write(self, name: str, logits: list[Tensor] | None) -> None:
        folder = self.folder / name
        with LogitWriter(folder, vocabulary=self.pair.vocabulary, epsilon=1e-3) as writer:
            for number, batch in enumerate(self.batches):
                chosen = self._chosen(batch)
                with torch.inference_mode():
                    found = (
                        answer_logits(self.teacher, chosen) if logits is None else logits[number]
                    )
                writer.add_batch(answer_batch(batch, chosen), found)

    def _extract(self) -> None:
        self._write("extraction", None)

    @torch.inference_mode()
    def _forward(self, *, whole: bool) -> None:
        for batch in self.batches:
            chosen = self._chosen(batch)
            if whole:
                inputs, mask = pad_batch([row.prompt + row.answer for row in chosen], pad=0)
                self.teacher(input_ids=inputs, attention_mask=mask, use_cache=False)
            else:
                answer_logits(self.teacher, chosen)

    def _read(self) -> None:
        """Every row once, in batches of random rows, from a store that is opened anew."""
        reader = LogitReader(self.folder / "read")
        order = torch.randperm(self.pair.rows, generator=torch.Generator().manual_seed(1)).tolist()
        for first in range(0, len(order), self.pair.batch):
            collate([reader[f"row-{place}"] for place in order[first : first + self.pair.batch]])

    def _train(self) -> None:
        """One step: teacher's rows out of the store, forward, loss, backward, optimiser."""
        reader = LogitReader(self.folder / "read")
        chosen = self.rows[: self.pair.batch]
        teacher = collate([reader[f"row-{place}"] for place in range(self.pair.batch)])
        ids, mask = pad_batch([row.prompt + row.answer for row in chosen], pad=0)
        labels = ids.clone()
        labels[:, : self.pair.prompt] = -100
        logits = self.student(input_ids=ids, attention_mask=mask).logits
        loss = distillation_loss("cross_entropy", logits, None, labels)
        loss = loss + 1.5 * distillation_loss("uld", logits, teacher, labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def build_teacher(pair: Pair, length: int) -> Any:
    """A Llama of random weights, its output layer scaled so that logits have the sharpness."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=pair.vocabulary,
        max_position_embeddings=length,
        tie_word_embeddings=False,
        **pair.teacher,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.inference_mode():
        probe = model(input_ids=torch.arange(5, 5 + 16)[None]).logits
        model.lm_head.weight *= pair.sharpness / probe.std()
    return model
