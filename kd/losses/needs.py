"""What a loss may ask for, by the names of its positional parameters. Imports no torch.

`BATCH` lists what is given with every batch (parameters of a function, or of a class's
`forward`; fields of `kd.losses.rows.AlignedBatch`), `SETUP` what is given once (positional
parameters of a class's `__init__`; fields of `kd.losses.setup.Setup`).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Need:
    """One thing a loss may ask for, and where it comes from."""

    description: str
    stored: bool = False  # read from the teacher's stored (or dense) distributions
    live: bool = False  # only the teacher itself, run on the batch, can give it

    @property
    def of_teacher(self) -> bool:
        """Whether it comes from the teacher's models or logits."""
        return self.stored or self.live


BATCH: dict[str, Need] = {
    "student": Need("the student's logits, [N, Vs], at the loss's temperature"),
    "teacher": Need("the teacher's logits [N, Vt], or its top-k", stored=True),
    "targets": Need("the student's own next token, [N]"),
    "teacher_targets": Need("the teacher's own next token, [N]", stored=True),
    "sequence": Need("which sequence of the batch each row is from, [N]"),
    "spans": Need("log-probability of each aligned span's own tokens, both sides", stored=True),
    "following": Need("the rows that predict what follows each aligned span", stored=True),
    "answers": Need("all answer rows of both sides, before they are paired", stored=True),
    "student_responses": Need("whether the student wrote the text of each row, [N]"),
    "temperatures": Need("temperatures of the student's and of the teacher's logits"),
    "features": Need("hidden states and attentions of both models", live=True),
}

SETUP: dict[str, Need] = {
    "vocabularies": Need("the text of every token, both sides"),
    "embeddings": Need("embeddings of both vocabularies in one common space"),
    "models": Need("sizes and output layers of both models"),
    "total_steps": Need("optimiser steps of the whole training"),
}
