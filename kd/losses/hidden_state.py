"""Hidden states of the student, projected into the teacher's space."""

import torch
from torch import Tensor, nn

from kd.errors import LossError
from kd.losses.declaration import loss
from kd.losses.features import AlignedFeatures, at_depth
from kd.losses.options import require_known
from kd.losses.projections import random_projection
from kd.losses.setup import Models

METRICS = ("cosine", "mse")


@loss(
    "hidden_state",
    family="features",
    same_vocabulary=False,
    truncation="dense",
    formula=r"1 - \cos(W h^q, h^p)",
    source="Jiao et al., arXiv 1909.10351, eq. 8 (mse); Sanh et al., arXiv 1910.01108 (cosine)",
    alignments=("truncate", "spans", "chunks"),
    choices={"metric": ("cosine", "mse")},
    ranges={"layers": "[0, 1]"},
)
class HiddenState(nn.Module):
    """Distance of hidden states at paired positions, after a learned projection of the student's.

    `metric` cosine: 1 - cos(W s, t), between 0 and 2, s and t being hidden states of student
    and teacher; it is blind to their lengths. `metric` mse: the mean of (W s - t)^2 over the
    teacher's dimensions, from 0 without bound; its scale is that of the teacher's states,
    which differs from layer to layer. The value is the mean over `layers`, shares of the depth
    (0 for the embeddings, 1 for the last layer), each with a projection W of its own.

    W [Dt, Ds] trains with the student. It begins orthogonal (its rows or columns, whichever
    are fewer, are orthonormal), drawn from `seed` and from no other random state. Hence even
    identical models are not at 0 until W has become the identity.

    It asks for hidden states, which no store holds: the teacher runs at every step. What the
    student's output layer makes of the states is not seen: two models can agree here and
    differ in what they predict.
    """

    def __init__(
        self,
        models: Models,
        *,
        metric: str = "cosine",
        layers: list[float] = [1.0],  # noqa: B006 - only read; its type is the option's
        seed: int = 0,
    ) -> None:
        super().__init__()
        require_known("metric", metric, METRICS)
        if not layers:
            raise LossError("option 'layers' is empty: give at least one share of the depth.")
        self._metric = metric
        self._layers = tuple(layers)
        generator = torch.Generator().manual_seed(seed)
        # Not every layer of a model has the same width: OPT-350m's last one is narrower.
        sizes = (
            [at_depth("hidden states", side.hidden_sizes, layer) for layer in layers]
            for side in (models.teacher, models.student)
        )
        self.projections = nn.ParameterList(
            random_projection(other, own, generator) for other, own in zip(*sizes, strict=True)
        )

    def forward(self, features: AlignedFeatures) -> Tensor:
        """Distance at each of N pairs, [N]."""
        distances = []
        for layer, projection in zip(self._layers, self.projections, strict=True):
            student, teacher = features.hidden(layer)
            projected = student @ projection.to(student.dtype).T
            distances.append(self._distance(projected, teacher.to(student.dtype)))
        return torch.stack(distances).mean(dim=0)

    def _distance(self, projected: Tensor, teacher: Tensor) -> Tensor:
        if self._metric == "cosine":
            return 1 - torch.cosine_similarity(projected, teacher, dim=-1)
        return (projected - teacher).square().mean(dim=-1)
