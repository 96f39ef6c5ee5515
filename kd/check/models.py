"""Whether a model can do what an experiment asks of it, from its configuration and tokenizer."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd.check.findings import Severity
from kd.experiment.models import HubModel, LocalModel
from kd.experiment.schema import Experiment
from kd.plan.physical import TOKENS

# Keys by which configurations say how long a sequence may be.
_POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
_WIDTHS = ("hidden_size", "d_model", "n_embed", "n_embd")
LONG = 2.5  # times the mean: a long row among a thousand


@dataclass(frozen=True)
class Asked:
    """What an experiment asks of one model.

    Attributes:
        name: in the experiment file.
        teacher: whether it teaches, or learns.
        model: its declaration.
        datasets: those that it answers or learns from.
    """

    name: str
    teacher: bool
    model: HubModel | LocalModel
    datasets: list[str]

    @property
    def key(self) -> str:
        """Its place in the experiment file."""
        return f"{'teachers' if self.teacher else 'students'}.{self.name}"


class Description:
    """A model's small files, read leniently: what is not there cannot be checked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = _json(folder / "config.json")

    @property
    def positions(self) -> int | None:
        """Longest sequence; None where positions are relative (T5) or without limit (Bloom)."""
        found = [self.config[key] for key in _POSITIONS if isinstance(self.config.get(key), int)]
        unlimited = self.config.get("model_type") in ("bloom", "t5", "mt5")
        return None if unlimited or not found else int(found[0])

    @property
    def layers_and_width(self) -> tuple[int, int]:
        """Layers, and units of the hidden states; (0, 0) where the configuration has other keys."""
        layers = self._first(_LAYERS) + self._first(("num_decoder_layers",))
        width = self._first(_WIDTHS)
        return (layers, width) if layers and width else (0, 0)

    def _first(self, keys: tuple[str, ...]) -> int:
        return next((int(self.config[key]) for key in keys if self.config.get(key)), 0)

    @property
    def width(self) -> int | None:
        """Columns of the output layer."""
        found = self.config.get("vocab_size")
        return found if isinstance(found, int) else None

    @property
    def tokens(self) -> dict[str, int] | None:
        """The tokenizer's vocabulary with its added tokens; None where it cannot be read so."""
        file = self.folder / "tokenizer.json"
        if file.is_file():
            from tokenizers import Tokenizer

            found: dict[str, int] = Tokenizer.from_file(str(file)).get_vocab()
            return found
        plain = _json(self.folder / "vocab.json")
        added = _json(self.folder / "added_tokens.json")
        return {**plain, **added} or None

    def special(self, name: str) -> str | None:
        """A special token's text."""
        for file in ("tokenizer_config.json", "special_tokens_map.json"):
            found = _json(self.folder / file).get(name)
            text = found.get("content") if isinstance(found, dict) else found
            if isinstance(text, str):
                return text
        return None


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


Problem = tuple[Severity, str]


def problems(experiment: Experiment, asked: Asked, found: Description) -> Iterator[Problem]:
    """What is wrong with a model for its part in `experiment`."""
    if not found.config:
        yield "error", "has no readable config.json: it is no model of the transformers library."
        return
    if found.config.get("auto_map"):
        yield (
            "warning",
            "brings code of its own, which is never run: if the transformers library does not "
            f"know '{found.config.get('model_type')}' by itself, it cannot be loaded.",
        )
    yield from _tokenizer(asked, found)
    yield from _context(experiment, asked, found)


def _tokenizer(asked: Asked, found: Description) -> Iterator[Problem]:
    tokens, width = found.tokens, found.width
    if tokens is None:
        yield "unknown", "its tokenizer is in a form that is read only when it is loaded."
    elif width is not None and max(tokens.values()) >= width:
        yield (
            "error",
            f"its tokenizer has the token {max(tokens.values())}, but the model knows {width} "
            "tokens: they do not belong together. Correct its 'repo' or 'revision'.",
        )
    end = found.special("eos_token")
    # A tokenizer without any such file takes the defaults of its class (OPT's does).
    described = (found.folder / "tokenizer_config.json").is_file()
    if described and end is None and tokens is not None:
        yield "warning", "its tokenizer names no token that ends a text: its class must know one."
    elif end is not None and tokens is not None and end not in tokens:
        yield "error", f"its token '{end}', which ends a text, is not in its vocabulary."
    yield from _template(asked, found)


def _template(asked: Asked, found: Description) -> Iterator[Problem]:
    from kd.data.chat import ChatTemplate
    from kd.errors import DataError

    if asked.model.prompt.style != "chat":
        return
    try:
        template = ChatTemplate.read(found.folder)
        template.render(
            [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "u"},
                {"role": "assistant", "content": "a"},
                {"role": "user", "content": "u"},
            ]
        )
    except DataError as error:
        yield "error", str(error).removeprefix(f"{found.folder}: ")


def _context(experiment: Experiment, asked: Asked, found: Description) -> Iterator[Problem]:
    positions = found.positions
    if positions is None:
        return
    answer = experiment.generation.max_new_tokens
    if positions <= answer:
        yield (
            "error",
            f"reads {positions} tokens, but answers may have {answer}. Lower "
            "'generation.max_new_tokens', or name a model with a longer context.",
        )
        return
    needs = {name: _prompt(experiment, asked, name) + answer for name in asked.datasets}
    mean = {name: need for name, need in needs.items() if need > positions}
    longest = {name: int((need - answer) * LONG + answer) for name, need in needs.items()}
    rarely = {name: need for name, need in longest.items() if need > positions and name not in mean}
    if mean:
        yield "error", _over(positions, "does not hold the mean prompt with its answer", mean)
    if rarely:
        what = "may not hold the longest prompts with their answers"
        yield "warning", _over(positions, what, rarely)
    if not asked.teacher and positions < experiment.training.max_length:
        yield (
            "warning",
            f"reads {positions} tokens, fewer than 'training.max_length' "
            f"({experiment.training.max_length}): longer rows are dropped, and counted.",
        )


def _over(positions: int, what: str, needs: Mapping[str, int]) -> str:
    told = ", ".join(f"{name} {need}" for name, need in needs.items())
    return (
        f"reads {positions} tokens, and that {what} (estimated: {told}). Lower its 'shots', or "
        "'generation.max_new_tokens'."
    )


def _prompt(experiment: Experiment, asked: Asked, dataset: str) -> int:
    question, answer = TOKENS[experiment.datasets[dataset].task]
    shots = asked.model.shots_on(dataset)
    return question + shots * (question + answer)


def asked_models(experiment: Experiment, uses: Mapping[str, list[str]]) -> Iterator[Asked]:
    """The models of an experiment that are not made inside the workflow.

    `uses`: names of datasets by model.
    """
    for teacher, block in ((True, experiment.teachers), (False, experiment.students)):
        for name, model in block.items():
            if isinstance(model, HubModel | LocalModel):
                yield Asked(name, teacher, model, uses.get(name, []))
