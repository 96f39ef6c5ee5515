"""Where an answer ends: at EOS, or at the first newline after some text."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation.stopping_criteria import StoppingCriteria

from kd.evaluation.predictions import FinishReason


@dataclass(frozen=True)
class Endings:
    """Which tokens end an answer. The tables are boolean, of shape [vocabulary]."""

    eos: int
    pad: int
    newline: torch.Tensor  # its text holds a newline
    text: torch.Tensor  # its text is not blank
    text_then_newline: torch.Tensor  # ends an answer even as its first token

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> "Endings":
        """The table of a tokenizer, for all outputs of the model."""
        pieces = tokenizer.batch_decode(
            [[token] for token in range(len(tokenizer))], skip_special_tokens=True
        )
        # Models may have more outputs than the tokenizer has tokens; these are blank.
        pieces += [""] * (model.config.vocab_size - len(pieces))

        # Another backend generates on its own, and leaves no weights behind.
        device = "cpu" if model.device.type == "meta" else model.device

        def table(holds: Callable[[str], bool]) -> torch.Tensor:
            return torch.tensor([holds(piece) for piece in pieces], device=device)

        eos = tokenizer.eos_token_id
        return cls(
            eos=eos,
            pad=eos if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
            newline=table(lambda piece: "\n" in piece),
            text=table(lambda piece: bool(piece.strip())),
            text_then_newline=table(lambda piece: "\n" in piece.lstrip()),
        )

    def ended(self, last: torch.Tensor, has_text: torch.Tensor) -> torch.Tensor:
        """Whether the tokens `last` [B] end their answers; `has_text` [B]: text came before."""
        return (has_text & self.newline[last]) | self.text_then_newline[last]

    def cut(self, row: torch.Tensor) -> tuple[list[int], FinishReason]:
        """The generated `row` [T] up to the token that ended it, and why it ended."""
        text_so_far = self.text[row].long().cumsum(0)
        has_text = (text_so_far - self.text[row].long()) > 0
        is_eos = row == self.eos
        stops = (is_eos | self.ended(row, has_text)).nonzero()
        if len(stops) == 0:
            return row.tolist(), "length"
        last = int(stops[0])
        return row[: last + 1].tolist(), "eos" if is_eos[last] else "newline"


class AnswerEnd(StoppingCriteria):
    """Ends each row of a batch at its first newline after some text."""

    def __init__(self, endings: Endings, rows: int) -> None:
        self._endings = endings
        self._has_text = torch.zeros(rows, dtype=torch.bool, device=endings.text.device)

    def __call__(
        self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: object
    ) -> torch.Tensor:
        """Which rows have just ended, [B] (the library calls this after each token)."""
        last = input_ids[:, -1]
        ended = self._endings.ended(last, self._has_text)
        self._has_text |= self._endings.text[last]
        return ended
