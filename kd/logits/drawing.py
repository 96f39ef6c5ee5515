"""Tokens drawn from next-token distributions, instead of the likeliest ones.

Sparse Logit Sampling (Anshumann et al., arXiv 2503.16870, section 3): of N tokens drawn from the
teacher's distribution p, let p^_v be the share that is v. Then E[p^] = p, so that whatever is
linear in p keeps its expectation, above all the gradient q - p of cross-entropy and forward KL in
the student's logits. The expected squared error of that gradient is

    E |p^ - p|^2 = (1 - sum p_v^2) / N,

at most 1 / N, whatever the vocabulary. Top-k logits have no variance; renormalised to 1 they are
biased instead. The entropy of p is stored beside the draws, so that the value of forward KL is
unbiased, too.
"""

import hashlib

import numpy as np
import torch
from torch import Tensor

from kd.logits.rows import AnswerBatch, StoredRows, TeacherRow
from kd.logits.selection import CHUNK_ENTRIES, Floats, Ints, shift


def draw_rows(answers: AnswerBatch, logits: Tensor, draws: int, seed: int) -> StoredRows:
    """Draw tokens from each distribution, with replacement.

    What is drawn for a token depends on `seed`, its row's id, its place in the row and its
    logits, and on no other row.

    Args:
        answers: R rows of M answer tokens.
        logits: [M, V], logits[t] predicts token t.
        draws: how many, for each token.
        seed: of the draws.

    Raises:
        ArtifactError: shapes do not fit, or a logit is NaN or +inf.
    """
    answers.check(logits)
    uniforms = [
        _generator(row_id, seed).random((length, draws))
        for row_id, length in zip(answers.ids, answers.lengths, strict=True)
    ]
    size = max(CHUNK_ENTRIES // logits.shape[-1], 1)
    split = [
        torch.split(whole, size)
        for whole in (logits, answers.tokens, torch.from_numpy(np.concatenate(uniforms)))
    ]
    parts = [_draw(*part) for part in zip(*split, strict=True)]
    drawn, own, entropies = (torch.cat(found).cpu().numpy() for found in zip(*parts, strict=True))
    counts, kept, numbers = _by_number(drawn)
    return StoredRows(
        ids=list(answers.ids),
        lengths=np.asarray(answers.lengths, dtype=np.int64),
        tokens=answers.tokens.cpu().numpy(),
        own=own.astype(np.float32),
        ends=answers.ends.cpu().numpy(),
        counts=counts,
        kept=kept,
        log_probs=np.log(numbers / draws),
        dropped=np.zeros((len(counts), 1)),
        entropies=entropies.astype(np.float32),
    )


def gradient_variance(row: TeacherRow) -> Floats:
    """E |p^ - p|^2 = (1 - sum p_v^2) / N of each token of a drawn row, [T], estimated.

    Of N draws, n_v of which are v, the sum of n_v (n_v - 1) / (N (N - 1)) estimates sum p_v^2
    without bias.
    """
    numbers = row.log_probs.double().exp().numpy() * row.draws
    pairs = np.concatenate([[0.0], (numbers * (numbers - 1)).cumsum()])[row.offsets.numpy()]
    same: Floats = np.diff(pairs) / (row.draws * (row.draws - 1))
    return (1 - same) / row.draws


def _generator(row_id: str, seed: int) -> np.random.Generator:
    key = hashlib.sha256(f"draws/{seed}/{row_id}".encode()).digest()
    return np.random.Generator(np.random.Philox(int.from_bytes(key[:8], "big")))


def _draw(logits: Tensor, tokens: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Drawn ids [R, N], log-probabilities [R] of `tokens`, and entropies [R]."""
    shifted = shift(logits).double()
    masses = shifted.exp()
    edges = masses.cumsum(dim=-1)
    total = edges[:, -1:].clone()
    # Rounded up to the total, a point would lie beyond the last possible token.
    points = torch.minimum(uniforms.to(total) * total, total.nextafter(torch.zeros_like(total)))
    drawn = torch.searchsorted(edges, points, right=True)
    own = shifted.gather(-1, tokens.to(logits.device, torch.int64)[:, None]) - total.log()
    expected = (masses * shifted.masked_fill(masses == 0, 0.0)).sum(dim=-1, keepdim=True)
    return drawn, own[:, 0], (total.log() - expected / total)[:, 0]


def _by_number(drawn: Ints) -> tuple[Ints, Ints, Ints]:
    """Of ids [M, N]: distinct ones of each row, [M]; these, and how often each, [E].

    In the order of numbers, largest first, of equal ones the smaller id first.
    """
    width = drawn.max(initial=0) + 1
    keys, numbers = np.unique(drawn + width * np.arange(len(drawn))[:, None], return_counts=True)
    rows, ids = np.divmod(keys, width)
    order = np.lexsort((ids, -numbers, rows))
    return np.bincount(rows, minlength=len(drawn)), ids[order], numbers[order]
