"""What is kept of a teacher's next-token distributions, and which methods can read that."""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from kd.errors import ExperimentError, nearest
from kd.experiment.base import Natural, Positive, Strict
from kd.experiment.methods import Method
from kd.experiment.requirements import reads_logits
from kd.losses.catalogue import LossInfo, available_losses

DEFAULT = "default"  # the variant that methods read which name none
EPSILON = 1e-4

Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Sampling(Strict):
    """Tokens drawn from each distribution instead of its likeliest ones (arXiv 2503.16870)."""

    draws: Annotated[int, Field(gt=1, lt=1 << 16)] = Field(default=50, description="per token")
    seed: Natural = 0


class Logits(Strict):
    """What is kept of the teacher's next-token distributions."""

    epsilon: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=EPSILON, description="probability mass that may be dropped per token"
    )
    cap: Positive | None = Field(default=None, description="most entries kept per token")
    ids: bool = Field(
        default=True, description="without ids, only losses on sorted probabilities can be used"
    )
    precision: Literal["compact", "full"] | None = Field(
        default=None,
        description="16 or 32 bits a probability; by default 16, but 32 where epsilon is 0",
    )
    temperatures: list[Temperature] = Field(
        default=[], description="others than 1 at which methods may read truncated logits"
    )
    sampling: Sampling | None = Field(
        default=None, description="draw tokens instead: unbiased, for losses linear in the teacher"
    )
    deterministic: bool = Field(
        default=False, description="one row at a time: what is stored of it depends on no other"
    )

    @property
    def truncated(self) -> bool:
        """Whether kept tokens leave some mass out; drawn ones are another matter."""
        return self.sampling is None and (self.epsilon > 0 or self.cap is not None)

    @model_validator(mode="after")
    def _consistent(self) -> "Logits":
        if self.precision == "compact" and self.epsilon == 0 and self.sampling is None:
            raise ValueError(
                "'precision: compact' needs an 'epsilon' above 0, which bounds how small a kept "
                "probability can be: set one, or 'precision: full'"
            )
        if 1.0 in self.temperatures or len(set(self.temperatures)) < len(self.temperatures):
            raise ValueError("'temperatures' must be distinct, and others than 1")
        keeps = (self.epsilon, self.cap, self.ids, self.precision, self.temperatures)
        if self.sampling is not None and keeps != (EPSILON, None, True, None, []):
            raise ValueError(
                "'sampling' draws tokens, so that 'epsilon', 'cap', 'ids', 'precision' and "
                "'temperatures' mean nothing beside it: remove them"
            )
        return self


def named_variants(given: Any) -> Any:
    """`logits: {epsilon: …}` as the variant 'default'; several variants as they are."""
    if not isinstance(given, Mapping):
        return given
    blocks = bool(given) and all(isinstance(value, Mapping) for value in given.values())
    return given if blocks and not set(given) & set(Logits.model_fields) else {DEFAULT: given}


def variant_of(method: Method, variants: Mapping[str, Logits]) -> str:
    """Name of the variant that `method` reads: its own choice, or the only one, or 'default'."""
    if method.logits is not None:
        return method.logits
    return next(iter(variants)) if len(variants) == 1 else DEFAULT


def find_variant(name: str, variants: Mapping[str, Logits]) -> Logits:
    """The variant called `name`.

    Raises:
        ExperimentError: there is none.
    """
    if name not in variants:
        raise ExperimentError(f"the experiment has no logits '{name}'. {nearest(name, variants)}")
    return variants[name]


def store_findings(
    method: Method, loss: LossInfo, logits: Logits, limit: float | None
) -> Iterator[str]:
    """Why a method cannot read such logits, or not as exactly as `max_logit_error` asks for."""
    if not reads_logits(method):
        return
    yield from _temperature(method, logits)
    if logits.truncated and loss.truncation_under(method.options) == "dense":
        yield (
            f"needs the teacher's whole distributions for '{loss.name}' with these options, but "
            "the stored logits are truncated. Set 'logits: {epsilon: 0.0}', or use one of: "
            f"{_names(lambda info: info.truncation == 'certified')}."
        )
    if loss.reads_ids and not logits.ids:
        yield (
            f"reads token ids for '{loss.name}', but they are not stored. Set 'logits: {{ids: "
            f"true}}', or use one of: {_names(lambda info: not info.reads_ids)}."
        )
    if logits.sampling is not None and not loss.unbiased_on_draws:
        yield (
            f"would be biased: '{loss.name}' is not linear in the teacher's probabilities, and of "
            "these only some were drawn. Remove 'sampling', or use one of: "
            f"{_names(lambda info: info.unbiased_on_draws)}."
        )
    if limit is not None:
        yield from _limited(method, loss, logits)


def _temperature(method: Method, logits: Logits) -> Iterator[str]:
    temperature = method.teacher_temperature or method.temperature
    if temperature != 1 and logits.sampling is not None:
        yield "has a temperature other than 1, but tokens were drawn at 1. Remove 'sampling'."
    if temperature != 1 and logits.truncated and temperature not in logits.temperatures:
        yield (
            "has a temperature other than 1, but the stored logits are truncated, so their tail "
            f"cannot be tempered. Set 'logits: {{temperatures: [{temperature}]}}', or "
            "'logits: {epsilon: 0.0}'."
        )


def _limited(method: Method, loss: LossInfo, logits: Logits) -> Iterator[str]:
    if logits.sampling is not None:
        yield "is under 'max_logit_error', but what was drawn has a variance and no bound."
    elif logits.truncated and not loss.certified_under(
        method.options, method.teacher_temperature or method.temperature
    ):
        yield (
            f"is under 'max_logit_error', but nothing bounds the error of '{loss.name}' with these "
            "options on truncated logits. Set 'logits: {epsilon: 0.0}', remove 'max_logit_error', "
            f"or use one of: {_names(lambda info: info.certified_under({}))}."
        )


def _names(condition: Callable[[LossInfo], bool]) -> str:
    """Losses on stored logits that meet a condition."""
    return ", ".join(
        info.name
        for info in available_losses().values()
        if info.needs_distributions and not info.needs_live_teacher and condition(info)
    )
