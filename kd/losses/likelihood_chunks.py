"""Approximate likelihood matching: how likely both sides find the same pieces of text."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kd.errors import LossError
from kd.losses.declaration import loss
from kd.losses.differences import DIFFERENCES, difference_of
from kd.losses.options import require_known, require_share
from kd.losses.probabilities import log_sum_exp
from kd.losses.rows import Following
from kd.losses.setup import Vocabularies
from kd.losses.spans import Spans
from kd.losses.teacher import Teacher, TopKRows

WEIGHTINGS = ("chunk", "token")


@loss(
    "chunk_likelihood",
    family="chunk likelihood",
    same_vocabulary=False,
    truncation="unaffected",
    formula=r"D\bigl(P_c^{1/\tau}, Q_c^{1/\tau}\bigr), \quad P_c = \prod_{t \in c} p_t(y_t)",
    source="Minixhofer et al., arXiv 2503.20083 (ALM)",
    alignments=("chunks",),
    choices={
        "difference": (
            "binary_kl",
            "reverse_binary_kl",
            "binary_kl_limit",
            "absolute_probability",
            "absolute_log_ratio",
            "squared_log_ratio",
            "exponential_log_ratio",
        ),
        "weighting": ("chunk", "token"),
    },
    ranges={"chunk_temperature": "(0, inf)"},
    reads_ids=False,
    unbiased_on_draws=True,
)
def chunk_likelihood(
    spans: Spans,
    *,
    difference: str = "binary_kl",
    chunk_temperature: float = 100.0,
    weighting: str = "chunk",
) -> Tensor:
    """Difference between both sides' likelihoods of a piece of text, given the text before it.

    A chunk c is the smallest span at whose end both sides have a token boundary; P is the
    teacher's probability of its tokens y one after the other, Q the student's of its own
    tokens for the same text. They depend on no vocabulary, so that any two tokenizers can be
    compared. But P is the probability of these very tokens: where the text could go on with a
    longer token, it is smaller than that of the text (see `chunk_likelihood_unbiased`).

    Only the probabilities of the text itself are read, so a top-k teacher changes nothing.
    What else the teacher would have said is not taught.

    Args:
        spans: log-probabilities of both sides' tokens in N chunks.
        difference: D, one of `kd.losses.differences.DIFFERENCES`. All are 0 for P = Q alone.
        chunk_temperature: tau, which brings probabilities of long chunks near to 1. Not the
            temperature of the distributions.
        weighting: `chunk`, or `token`: a chunk counts once for each of the teacher's tokens in
            it, while the mean is still one over chunks.

    Raises:
        LossError: an option has a value that it does not know.
    """
    _check(difference, chunk_temperature, weighting)
    value = difference_of(difference, spans.teacher.whole, spans.student.whole, chunk_temperature)
    return value if weighting == "chunk" else value * spans.teacher.tokens


@loss(
    "chunk_likelihood_unbiased",
    family="chunk likelihood",
    same_vocabulary=False,
    truncation="unbounded",
    formula=(
        r"D\bigl((P_c S_c)^{1/\tau}, (Q_c S'_c)^{1/\tau}\bigr), \quad S_c = \sum_{v \in W}"
        r" p(v \mid c)"
    ),
    source="Minixhofer et al., arXiv 2503.20083 (ALM), with its de-biasing of chunk ends",
    aliases=("alm",),
    alignments=("chunks",),
    choices={
        "difference": (
            "binary_kl",
            "reverse_binary_kl",
            "binary_kl_limit",
            "absolute_probability",
            "absolute_log_ratio",
            "squared_log_ratio",
            "exponential_log_ratio",
        ),
        "weighting": ("chunk", "token"),
    },
    ranges={"chunk_temperature": "(0, inf)", "merge_below": "[0, 1]"},
)
class UnbiasedChunkLikelihood(nn.Module):
    """Like `chunk_likelihood`, for pieces of text after which a word begins.

    The tokens of a chunk exclude those continuations of the text with which its last token
    would have become a longer one; which these are depends on the tokenizer. Hence P is
    multiplied by S, the teacher's probability that the next token begins a word (its text
    begins with white space: the tokens W), and Q by the student's. Tokens that begin words
    hardly ever merge with what is before them, so that P S is the probability of the chunk
    followed by a word's beginning, for any tokenizer.

    The last chunk of an answer has no such factor: what follows is no part of the answer.

    Inside of words S is small and its estimates differ. A chunk after which the teacher's S is
    less than `merge_below` is joined with the one after it; their values then stand at the
    last chunk of them, and the others count 0 in the mean.

    Top-k teacher: half of the dropped mass d is counted into S, which is then exact up to d / 2.
    The value has no bound in d, since P S may be much smaller than d.

    Args:
        vocabularies: the text of every token on both sides.
        difference: D, one of `kd.losses.differences.DIFFERENCES`.
        chunk_temperature: tau.
        weighting: `chunk` or `token`, as in `chunk_likelihood`.
        merge_below: least probability of a word's beginning at which a chunk may end.

    Raises:
        LossError: an option has a value that it does not know, or one of the vocabularies has
            no token that begins a word.
    """

    def __init__(
        self,
        vocabularies: Vocabularies,
        *,
        difference: str = "binary_kl",
        chunk_temperature: float = 100.0,
        weighting: str = "chunk",
        merge_below: float = 0.1,
    ) -> None:
        super().__init__()
        _check(difference, chunk_temperature, weighting)
        require_share("merge_below", merge_below)
        self._difference = difference
        self._temperature = chunk_temperature
        self._by_token = weighting == "token"
        self._merge_below = merge_below
        self._student: Tensor
        self._teacher: Tensor
        self.register_buffer("_student", word_starts(vocabularies.student), persistent=False)
        self.register_buffer("_teacher", word_starts(vocabularies.teacher), persistent=False)

    def forward(self, spans: Spans, following: Following, sequence: Tensor) -> Tensor:
        """The value of each chunk, 0 where it is part of a longer one, [N]."""
        self.to(sequence.device)
        start_p = self._start_of_teacher(following.teacher)
        closes = (start_p >= self._merge_below) | ~following.known
        closes[:-1] |= sequence[1:] != sequence[:-1]
        closes[-1] = True
        joined = closes.cumsum(0) - closes.long()  # [N]: which of the joined chunks each is in

        def chained(whole: Tensor, start: Tensor) -> Tensor:
            total = whole.new_zeros(int(closes.sum())).index_add(0, joined, whole)
            return total + start.masked_fill(~following.known, 0.0)[closes]

        log_p = chained(spans.teacher.whole, start_p.log())
        log_q = chained(spans.student.whole, _log_start(following.student, self._student))
        value = difference_of(self._difference, log_p, log_q, self._temperature)
        if self._by_token:
            tokens = spans.teacher.tokens
            value = value * tokens.new_zeros(len(value)).index_add(0, joined, tokens)
        return value.new_zeros(len(closes)).masked_scatter(closes, value)

    def _start_of_teacher(self, teacher: Teacher) -> Tensor:
        """Probability [N] that the teacher's next token begins a word."""
        if not isinstance(teacher, TopKRows):
            return _log_start(teacher, self._teacher).exp()
        starts = _widened(self._teacher, teacher.vocabulary)[teacher.ids]
        return teacher.log_probs.exp().where(starts, 0.0).sum(-1) + teacher.dropped / 2


def word_starts(texts: Sequence[str | None]) -> Tensor:
    """Which tokens begin a word, [V] bool: those whose text begins with white space.

    Raises:
        LossError: none does.
    """
    starts = torch.tensor([text is not None and text[:1].isspace() for text in texts])
    if not starts.any():
        raise LossError(
            "no token of a vocabulary begins a word (with a space): use 'chunk_likelihood'."
        )
    return starts


def _log_start(logits: Tensor, starts: Tensor) -> Tensor:
    """Log-probability [N] of the tokens that begin words, under logits [N, V]."""
    others = ~_widened(starts, logits.shape[-1])
    begun = log_sum_exp(logits.masked_fill(others, -torch.inf))
    return (begun - logits.logsumexp(dim=-1, keepdim=True))[:, 0]


def _widened(starts: Tensor, width: int) -> Tensor:
    """With the columns that logits may have beyond a vocabulary."""
    return torch.nn.functional.pad(starts, (0, width - len(starts)))


def _check(difference: str, chunk_temperature: float, weighting: str) -> None:
    require_known("difference", difference, DIFFERENCES)
    require_known("weighting", weighting, WEIGHTINGS)
    if chunk_temperature <= 0:
        raise LossError(f"chunk_temperature is {chunk_temperature}, but must be greater than 0.")
