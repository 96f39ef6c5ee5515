"""A method: which loss a student learns by, and whose text it learns from."""

from typing import Annotated, Any, Literal

from pydantic import Field

from kd.experiment.base import Name, Positive, Rate, Strict

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


class Method(Strict):
    """A column of a table: how a student learns from its teacher.

    The objective is `ce_weight * CE(teacher text) + weight * loss(teacher, student)`.
    """

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

    @property
    def softens_teacher(self) -> bool:
        """Whether the teacher's distributions are read at another temperature than 1."""
        return (self.teacher_temperature or self.temperature) != 1.0
