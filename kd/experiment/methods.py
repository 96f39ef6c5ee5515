"""A method: which loss a student learns by, and whose text it learns from."""

from typing import Annotated, Any, Literal

from pydantic import Field

from kd.experiment.base import Grown, Name, Positive, Rate, Strict

Share = Annotated[float, Field(ge=0, le=1)]


class TeacherText(Strict):
    """The student learns on the teacher's stored answers alone."""

    policy: Literal["teacher"] = "teacher"


class OnPolicy(Strict):
    """The student also learns on text that it samples itself; the teacher runs at each step."""

    max_new_tokens: Positive = 32
    sampling_temperature: Annotated[float, Field(gt=0)] = 1.0


class MixedText(OnPolicy):
    """GKD: a share of the steps uses the student's text; 1 is MiniLLM's single-step setting."""

    policy: Literal["mixed"]
    student_fraction: Share = 0.5


class BothTexts(OnPolicy):
    """DistiLLM-2: every step uses the teacher's and the student's text on the same prompts."""

    policy: Literal["both"]


class AdaptiveText(OnPolicy):
    """DistiLLM: the share of student text grows when validation stalls; samples are replayed."""

    policy: Literal["adaptive"]
    share: Share = Field(default=0.0, description="at the start")
    increment: Share = Field(default=0.1, description="added when validation is worse")
    tolerance: Rate = Field(default=0.1, description="how much worse, in units of the loss")
    capacity: Positive = Field(default=1000, description="samples kept for replay")
    replay: Literal["decreasing", "constant", "increasing"] = Field(
        default="decreasing", description="share of fresh samples over the run"
    )


Responses = Annotated[
    TeacherText | MixedText | BothTexts | AdaptiveText, Field(discriminator="policy")
]


class Lora(Strict):
    """Low-rank adapters are trained in place of the student's own weights."""

    rank: Positive = 16
    alpha: Positive = Field(default=32, description="the adapters are scaled by alpha / rank")
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Literal["all"] | Annotated[list[str], Field(min_length=1)] = Field(
        default="all",
        description="names of layers; by default all linear ones but the output layer",
    )
    merge: bool = Field(
        default=True, description="add them to the weights; otherwise they are kept alone"
    )


class Method(Grown):
    """A column of a table: how a student learns from its teacher.

    The objective is `ce_weight * CE(teacher text) + weight * loss(teacher, student)`.
    """

    later = frozenset(["lora"])

    loss: str = Field(description="'none', or a name that `kd losses` lists")
    weight: Rate = 1.0
    ce_weight: Rate = 1.0
    temperature: Annotated[float, Field(gt=0)] = 1.0
    teacher_temperature: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="divides the teacher's logits instead, where it differs"
    )
    t2_scaling: bool = False
    reduction: Literal["token", "sequence"] = "token"
    alignment: Literal["truncate", "spans", "chunks"] | None = Field(
        default=None, description="by default the loss's own"
    )
    options: dict[str, Any] = Field(default={}, description="the loss's own options")
    responses: Responses = TeacherText()
    logits: Name | None = Field(
        default=None, description="variant of the stored logits, where there are several"
    )

    lora: Lora | None = Field(default=None, description="train adapters instead of all weights")

    @property
    def keeps_adapters(self) -> bool:
        """Whether the student is written as adapters, without the weights they belong to."""
        return self.lora is not None and not self.lora.merge

    @property
    def softens_teacher(self) -> bool:
        """Whether the teacher's distributions are read at another temperature than 1."""
        return (self.teacher_temperature or self.temperature) != 1.0
