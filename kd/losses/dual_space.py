"""Dual-space distillation: each model's hidden states, read by the other one's output layer."""

import math

import torch
from torch import Tensor, nn

from kd.losses.declaration import loss
from kd.losses.features import AlignedFeatures
from kd.losses.options import require_known
from kd.losses.probabilities import expectation
from kd.losses.projections import logit_projection, random_projection
from kd.losses.rows import AnswerRows
from kd.losses.setup import Models, ModelSide, Vocabularies

DIVERGENCES = ("forward_kl", "reverse_kl")


@loss(
    "dual_space",
    family="dual space",
    same_vocabulary=False,
    truncation="dense",
    formula=r"-\ln \tilde p_y + 1[\arg\max \tilde p = y] D(\tilde p, q) + KL(p \| \tilde q)",
    source="Zhang et al., arXiv 2504.11426 (exact token alignment)",
    alignments=("chunks", "truncate"),
    choices={"divergence": ("forward_kl", "reverse_kl")},
)
class DualSpace(nn.Module):
    r"""Distillation in both models' output spaces, at tokens that both sides cut alike.

    Three terms, in nats. A matrix projects the teacher's last hidden state to the student's
    size, where the student's output layer makes a distribution p~ of it; another one projects
    the student's to the teacher's size, where the teacher's output layer makes q~ of it.

    1. -ln p~_y, y being the student's token: trains the first matrix.
    2. D(p~, q) against the student's own q, p~ being a constant: trains the student. It is
       left out where p~ does not give y its largest probability. `divergence` says which one:
       forward_kl is KL(p~ || q), reverse_kl is KL(q || p~).
    3. KL(p || q~) against the teacher's own p: trains the second matrix and the student.

    Output layers are constants here, read anew in every step. Both matrices train with the
    student; they begin as what keeps logits of the common tokens (of equal text) best. The
    terms weigh the same. A pair of which either side is more than a single token counts as 0
    in the mean over all pairs. Under `truncate` all pairs are taken for exact: that is for
    models of one tokenizer.

    Two choices differ from the authors' later code (KDFlow): there, terms 1 and 3 are means
    over exact pairs only, and the second matrix is not learned but follows from the output
    layers in each step.

    It is no divergence: between identical models the first term remains. Temperatures divide
    the logits of terms 2 and 3, of p~ as the teacher's and of q~ as the student's.

    It asks for hidden states, which no store holds: the teacher runs at every step.
    """

    def __init__(
        self, models: Models, vocabularies: Vocabularies, *, divergence: str = "forward_kl"
    ) -> None:
        super().__init__()
        require_known("divergence", divergence, DIVERGENCES)
        for side in (models.student, models.teacher):
            side.require_plain("dual_space")
        self._models = models
        self._divergence = divergence
        own, other = common_tokens(vocabularies)
        student, teacher = (
            side.output.detach()[tokens.to(side.output.device)] * side.scale
            for side, tokens in ((models.student, own), (models.teacher, other))
        )
        self.to_student = logit_projection(student, teacher)  # [Ds, Dt]
        self.to_teacher = logit_projection(teacher, student)  # [Dt, Ds]

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        targets: Tensor,
        features: AlignedFeatures,
        temperatures: tuple[float, float],
    ) -> Tensor:
        """The sum of all three terms at each of N pairs, [N]."""
        pairs = features.pairs
        single = (pairs.student_first == pairs.student) & (pairs.teacher_first == pairs.teacher)
        (exact,) = single.nonzero(as_tuple=True)
        student, teacher = student[exact], teacher[exact].to(student.dtype)
        own, other = (side[exact].to(student.dtype) for side in features.hidden(1.0))
        projected = read_out(other @ self.to_student.to(own.dtype).T, self._models.student)
        values = in_student_space(
            projected, student, targets[exact], temperatures[1], self._divergence
        )
        projected = read_out(own @ self.to_teacher.to(own.dtype).T, self._models.teacher)
        values = values + in_teacher_space(projected, teacher, temperatures[0])
        return values.new_zeros(len(single)).index_put((exact,), values)


@loss(
    "dual_space_attention",
    family="dual space",
    same_vocabulary=False,
    truncation="dense",
    formula=r"-\ln \tilde p_y + 1[\arg\max \tilde p = y] D(\tilde p, q)"
    r" + \frac{1}{n} \sum_m KL(p_m \| \tilde q_m)",
    source="Zhang et al., arXiv 2406.17328, sec. 3 (cross-model attention)",
    aliases=("dual_space_cma",),
    alignments=("student",),
    choices={"divergence": ("forward_kl", "reverse_kl")},
)
class DualSpaceAttention(nn.Module):
    r"""Distillation in both models' output spaces, with learned alignment of all answer tokens.

    The terms of `dual_space`, but each token's hidden state in the other model's space is a
    mean over all answer tokens of the other model, by the attention

        a = softmax(Q [e_i-1; e_i] . k_j / sqrt(2 Dt)),   k_j = norm([f_j-1; f_j]),

    e_i being the rows of the student's output layer for its token i and f_j those of the
    teacher's for its token j. In the student's space the values are P (norm(t_j) + norm(f_j))
    with the teacher's last hidden states t_j; in the teacher's space, P' s_i with the student's
    s_i, and the transposed scores. Q, P and P' train with the student.

    Rows are the n answer tokens of the student; the third term, which has one value for each
    of the teacher's tokens m, is summed over the sequence and spread evenly over its rows.

    Where the paper is ambiguous or rests on what a loss is not given: `norm` divides by the
    vector's own standard deviation (the authors' code: by that of the whole batch, so that
    rows would depend on one another); embeddings are those of the output layers; the token
    before the first answer token belongs to the prompt and counts as 0. The three matrices
    begin orthogonal, drawn from `seed` and from no other random state.

    The values hold the token that is to be predicted (f_j), so that the first term can
    become small without the teacher's states.
    """

    def __init__(self, models: Models, *, divergence: str = "forward_kl", seed: int = 0) -> None:
        super().__init__()
        require_known("divergence", divergence, DIVERGENCES)
        for side in (models.student, models.teacher):
            side.require_plain("dual_space")
        self._models = models
        self._divergence = divergence
        own, other = models.student.output.shape[1], models.teacher.output.shape[1]
        generator = torch.Generator().manual_seed(seed)
        self.query = random_projection(2 * other, 2 * own, generator)
        self.to_student = random_projection(own, other, generator)
        self.to_teacher = random_projection(other, own, generator)

    def forward(
        self, answers: AnswerRows, features: AlignedFeatures, temperatures: tuple[float, float]
    ) -> Tensor:
        """The sum of all three terms at each of the student's N answer tokens, [N]."""
        own, other = features.own, features.other
        both = (own.lengths > 0) & (other.lengths > 0)  # as under alignment 'student'
        rows, others = both[own.sequence], both[other.sequence]
        student, teacher = answers.student[rows], answers.teacher
        assert isinstance(teacher, Tensor), "features come with dense logits only"
        teacher = teacher[others].to(student.dtype)
        sequences = own.sequence[rows], other.sequence[others]
        scores, values = self._attend(features, rows, others, student.dtype)
        scores = scores.masked_fill(sequences[0][:, None] != sequences[1], -torch.inf)
        projected = read_out(scores.softmax(dim=1) @ values[1], self._models.student)
        found = in_student_space(
            projected, student, own.targets[rows], temperatures[1], self._divergence
        )
        projected = read_out(scores.T.softmax(dim=1) @ values[0], self._models.teacher)
        divergence = in_teacher_space(projected, teacher, temperatures[0])
        total = divergence.new_zeros(len(both)).index_add(0, sequences[1], divergence)
        return found + (total / own.lengths.clamp(min=1))[sequences[0]]

    def _attend(
        self, features: AlignedFeatures, rows: Tensor, others: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Scores [Ms, Mt], and the values [Ms, Dt] and [Mt, Ds] that either side offers."""
        query, to_student, to_teacher = (
            matrix.to(dtype) for matrix in (self.query, self.to_student, self.to_teacher)
        )
        own, other = (
            token_vectors(side.output.detach().to(dtype), answers.targets, answers.lengths)
            for side, answers in (
                (self._models.student, features.own),
                (self._models.teacher, features.other),
            )
        )
        queries, keys = own[rows] @ query.T, normed(other[others])
        states = [side.to(dtype) for side in features.answer_hidden(1.0)]
        embeddings = other[others][:, other.shape[1] // 2 :]
        offered = (normed(states[1][others]) + normed(embeddings)) @ to_student.T
        scores = queries @ keys.T / math.sqrt(keys.shape[1])
        return scores, (states[0][rows] @ to_teacher.T, offered)


def in_student_space(
    projected: Tensor, student: Tensor, targets: Tensor, temperature: float, divergence: str
) -> Tensor:
    """First and second term of the projected teacher's logits [N, Vs], at `temperature`."""
    projected = projected.masked_fill(student == -torch.inf, -torch.inf)
    predicts = projected.argmax(dim=-1) == targets
    log_q = student.log_softmax(dim=-1)
    log_p = (projected.detach() / temperature).log_softmax(dim=-1)
    if divergence == "forward_kl":
        distance = expectation(log_p, log_p - log_q)
    else:
        distance = expectation(log_q, log_q - log_p)
    own = nn.functional.cross_entropy(projected, targets, reduction="none")
    return own + distance.where(predicts, 0.0)


def in_teacher_space(projected: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Third term of the projected student's logits [N, Vt], at `temperature`."""
    projected = projected.masked_fill(teacher == -torch.inf, -torch.inf)
    log_p = teacher.log_softmax(dim=-1)
    return expectation(log_p, log_p - (projected / temperature).log_softmax(dim=-1))


def read_out(hidden: Tensor, side: ModelSide) -> Tensor:
    """Logits [N, V] of last hidden states [N, D]; no gradient flows into the output layer."""
    return side.scale * hidden @ side.output.detach().to(hidden.dtype).T


def token_vectors(output: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
    """Rows of `output` for each token's predecessor in its sequence, and for itself, [M, 2 D]."""
    vectors = output[tokens]
    before = vectors.roll(1, dims=0)
    starts = lengths.cumsum(0) - lengths
    before[starts[lengths > 0]] = 0.0
    return torch.cat([before, vectors], dim=-1)


def normed(vectors: Tensor) -> Tensor:
    """Each of the vectors [M, D] divided by its own standard deviation."""
    deviation = vectors.std(dim=-1, keepdim=True)
    return vectors / deviation.clamp(min=torch.finfo(vectors.dtype).eps)


def common_tokens(vocabularies: Vocabularies) -> tuple[Tensor, ...]:
    """Ids [C] and [C] of the tokens with the same text; of several on a side, the first."""
    own, other = (
        {text: number for number, text in reversed(list(enumerate(texts))) if text is not None}
        for texts in (vocabularies.student, vocabularies.teacher)
    )
    both = [text for text in own if text in other]
    ids = torch.tensor([[own[text], other[text]] for text in both], dtype=torch.int64)
    return tuple(ids.reshape(-1, 2).unbind(1))
