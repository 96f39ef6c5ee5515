"""Attention of both models among the positions that predict paired tokens."""

import torch
from torch import Tensor

from kd.errors import LossError
from kd.losses.declaration import loss
from kd.losses.features import AlignedFeatures
from kd.losses.options import require_known
from kd.losses.probabilities import expectation

METRICS = ("mse", "kl")


@loss(
    "attention_transfer",
    family="features",
    same_vocabulary=False,
    truncation="dense",
    formula=r"\frac{1}{n} \sum_{j \le n} (A^q_{ij} - A^p_{ij})^2",
    source="Zagoruyko and Komodakis, arXiv 1612.03928; Jiao et al., arXiv 1909.10351, eq. 7",
    alignments=("truncate", "spans", "chunks"),
    choices={"metric": ("mse", "kl")},
    ranges={"layers": "[0, 1]"},
)
def attention_transfer(
    features: AlignedFeatures,
    *,
    metric: str = "mse",
    layers: list[float] = [1.0],  # noqa: B006 - only read; its type is the option's
) -> Tensor:
    """Distance of both models' attention among the paired positions of the same sequence.

    Of each model's attention matrix (self-attention; the decoder's of an encoder-decoder) only
    the n rows and columns of the positions that predict the sequence's n paired tokens are
    compared: position i of one model with position i of the other, whatever their indices.
    Heads are averaged, and each row is divided by its sum over those columns. Models may differ
    in tokenizer, number of heads, layers and prompt. The value is the mean over `layers`,
    shares of the depth (0 for the first layer, 1 for the last).

    `metric` mse: mean over the n columns of the squared difference, between 0 and 2 / n; its
    mean over the rows of a sequence is the mean over the matrix. `metric` kl: KL(p || q) of the
    teacher's row p and the student's q, from 0 without bound; where q is 0 (a window that ends
    before j), the smallest positive number stands for it.

    It sees which earlier answer positions matter to the next token. It does not see attention
    to the prompt, where most of it goes (what is left is scaled up to sum to 1), single heads,
    or values. The first position of a causal model attends to itself alone, so that its
    row, and a sequence with a single pair, has value 0; so has a row of which either side
    gives all attention elsewhere. It is 0 for identical models. Tokens inside a span count
    for nothing but the last.

    It asks for attentions, which no store holds: the teacher runs at every step, and both
    models have to be loaded with attn_implementation='eager'.
    """
    require_known("metric", metric, METRICS)
    if not layers:
        raise LossError("option 'layers' is empty: give at least one share of the depth.")
    distances = []
    for layer in layers:
        student, teacher = features.attention(layer)
        distances.append(_distance(metric, student, teacher.to(student.dtype), features))
    return torch.stack(distances).mean(dim=0)


def _distance(metric: str, student: Tensor, teacher: Tensor, features: AlignedFeatures) -> Tensor:
    smallest = torch.finfo(student.dtype).tiny
    shares = [side.sum(dim=-1, keepdim=True) for side in (student, teacher)]
    q, p = student / shares[0].clamp(min=smallest), teacher / shares[1].clamp(min=smallest)
    if metric == "mse":
        sequence = features.pairs.sequence
        values = (q - p).square().sum(dim=-1) / sequence.bincount()[sequence]
    else:
        values = expectation(p.log(), p.log() - q.clamp(min=smallest).log())
    return values.where((shares[0] > 0)[:, 0] & (shares[1] > 0)[:, 0], 0.0)
