"""The experiment file as types. Every key a user may write stands here or in the blocks beside it.

Models are strict: an unknown key or a wrong type is an error that names file and key
(`kd.experiment.loading` turns pydantic's findings into sentences).
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from kd.errors import nearest
from kd.experiment.base import (
    Curve,
    Grown,
    Name,
    Natural,
    Percent,
    Positive,
    Rate,
    Score,
    Strict,
    plain_name,
)
from kd.experiment.claims import Claim
from kd.experiment.datasets import Dataset
from kd.experiment.logits import DEFAULT, Logits, named_variants
from kd.experiment.methods import Method
from kd.experiment.models import Model

STATISTICS = ("lo", "hi", "p", "p_holm", "sd", "n")  # that follow a column, after its name
BESIDE = ("published", "difference", "inside")  # that precede a column's name


class Training(Grown):
    """Distillation's optimiser and schedule (defaults: the paper's, where it is sound)."""

    later = frozenset(
        "micro_batch precision gradient_checkpointing compile processes replicas".split()
    )

    epochs: Positive = 5
    batch_size: Positive = 8
    learning_rate: Rate
    scheduler: Literal["onecycle", "constant"] = "onecycle"
    warmup_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    weight_decay: Rate = 0.1
    cycle_momentum: bool = True
    max_length: Positive = Field(default=512, description="longer training rows are dropped")
    max_grad_norm: Rate | None = None
    validations: Positive = Field(default=10, description="validations, evenly over the run")
    select: Literal["validation_loss", "last"] = "validation_loss"
    checkpoint_steps: Positive = 200
    certificate_steps: Positive = Field(
        default=50,
        description="every so many steps, from the first on, it is said by how much the loss may "
        "be off for what a store left out; under 'max_logit_error' at each",
    )
    replicas: Positive = Field(
        default=1,
        description="train on one of so many equal parts of the rows, drawn by seed: what one of "
        "several replicas learns that are never synchronised",
    )
    fused_head: bool = Field(
        default=False,
        description="evaluate the student's output layer together with the losses, a few rows at "
        "a time: its logits never exist as a whole",
    )
    micro_batch: Positive | None = Field(
        default=None,
        description="rows that are in memory at a time; their gradients add up to the batch's",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="of matrix products; weights, gradients and losses stay float32",
    )
    gradient_checkpointing: bool = Field(
        default=False, description="compute activations twice instead of keeping them"
    )
    compile: bool = Field(default=False, description="compile the student with torch.compile")
    processes: Positive = Field(
        default=1, description="that share each batch, through accelerate; a GPU each"
    )


class Generation(Grown):
    """Greedy decoding; the answer is the text before the first newline, stripped."""

    later = frozenset("token_budget cache backend check_rows".split())

    max_new_tokens: Positive = 32
    batch_size: Positive = 32
    token_budget: Positive | None = Field(
        default=None,
        description="tokens of a batch, padding and answers included, in place of 'batch_size'",
    )
    cache: Literal["dynamic", "static"] = Field(
        default="dynamic", description="'static': allocated at once, so that steps can be compiled"
    )
    backend: Literal["transformers", "vllm"] = "transformers"
    check_rows: Positive = Field(
        default=16, description="prompts that transformers answers as well, to compare"
    )


class BertScore(Strict):
    """The encoder behind BERTScore. The paper's: roberta-large, layer 17, rescaled."""

    model: str = Field(description="local model folder, or a hub name where there is network")
    revision: str | None = Field(default=None, description="of a hub name: a commit, see `kd pin`")
    layer: Positive
    rescale: bool = False


class Evaluation(Strict):
    """Scores computed for every model (`kd.evaluation.metrics`)."""

    metrics: list[Score] = ["f1", "exact_match", "rouge1", "rouge2", "rougeL", "rougeLsum"]
    bertscore: BertScore | None = None


class Table(Strict):
    """A grid of cells. Empty lists mean everything that the experiment declares."""

    title: str = ""
    rows: list[Literal["dataset", "test", "teacher", "student", "fraction", "method"]] = Field(
        default=["dataset", "teacher", "student"],
        description="with 'method', one line a method instead of one column",
    )
    datasets: list[Name] = []
    tests: list[Name] = Field(
        default=[],
        description="datasets whose test rows are answered; by default that of the training",
    )
    teachers: list[Name] = []
    students: list[Name] = []
    methods: list[Name] = []
    fractions: list[Percent] = Field(default=[100], min_length=1)
    metrics: list[Score | Curve] = Field(
        default=[], description="one line each; by default the metric of the dataset"
    )
    baseline: Name = "teacher_text"
    skip_inapplicable: bool = Field(
        default=False, description="leave out methods that are not defined for a pair"
    )

    @model_validator(mode="after")
    def _whole_lines(self) -> "Table":
        if self.skip_inapplicable and "method" not in self.rows:
            raise ValueError("'skip_inapplicable' leaves out lines: add 'method' to 'rows'")
        return self


class Experiment(Grown):
    """A whole experiment file, after `extends` has been resolved."""

    later = frozenset(["device"])

    name: Name
    description: str = ""
    seed: Natural = Field(default=0, description="seed of the world: data and few-shot choice")
    data_root: str = Field(default=".", description="folder of the files that datasets name")
    datasets: dict[Name, Dataset]
    teachers: dict[Name, Model]
    students: dict[Name, Model]
    methods: dict[Name, Method]
    training: Training
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="of models that are not micro; 'cuda' refuses to run without"
    )
    training_on: dict[Name, dict[str, Any]] = Field(
        default={}, description="keys of 'training' that differ on a dataset, by its name"
    )
    generation: Generation = Generation()
    evaluation: Evaluation = Evaluation()
    logits: Annotated[dict[Name, Logits], BeforeValidator(named_variants)] = Field(
        default={DEFAULT: Logits()},
        description="options, or variants by name, of which methods choose one",
    )
    max_logit_error: Rate | None = Field(
        default=None,
        description="most by which a loss may be off, on average over tokens, for what its store "
        "left out; refuses losses without such a bound",
    )
    seeds: list[Natural] = [0]
    tables: dict[Name, Table]
    claims: dict[Name, Claim] = {}
    deviations: list[str] = Field(
        default=[], description="how this departs from what it reproduces, a sentence each"
    )
    published: str | None = Field(
        default=None, description="csv of published scores, shown beside ours"
    )

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        return plain_name(name)

    @field_validator("datasets", "teachers", "students", "methods", "tables", "logits")
    @classmethod
    def _check_keys(cls, block: dict[str, Any]) -> dict[str, Any]:
        for name in block:
            plain_name(name)
        if not block:
            raise ValueError("must not be empty")
        return block

    @field_validator("logits")
    @classmethod
    def _free_folders(cls, variants: dict[str, Logits]) -> dict[str, Logits]:
        for name in variants:
            if name in ("eval", "logits"):  # they lie beside the variants' own
                raise ValueError(f"'{name}' is the name of another folder: rename the logits")
        return variants

    @field_validator("methods")
    @classmethod
    def _free_columns(cls, methods: dict[str, Method]) -> dict[str, Method]:
        own = ("teacher_score", "native", "score", "gain")
        scores = [*methods, *own]
        gains = ["gain", *(f"gain_{name}" for name in methods)]
        statistics = (f"{name}_{end}" for name in scores + gains for end in STATISTICS)
        beside = (f"{word}_{name}" for word in BESIDE for name in scores)
        taken = {*own, *gains, *statistics, *beside}
        for name in methods:
            if name in taken:
                raise ValueError(f"'{name}' is the name of another column: rename the method")
        return methods

    @field_validator("training_on")
    @classmethod
    def _known_training(cls, given: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for dataset, keys in given.items():
            for key in keys:
                if key not in Training.model_fields:
                    raise ValueError(
                        f"'{dataset}.{key}' is no key of 'training'. "
                        f"{nearest(key, Training.model_fields)}"
                    )
        return given

    def training_for(self, dataset: str) -> Training:
        """How students are trained on `dataset`."""
        own = self.training_on.get(dataset, {})
        return Training.model_validate(self.training.model_dump() | own)

    @model_validator(mode="after")
    def _every_training(self) -> "Experiment":
        for dataset in self.training_on:
            try:
                self.training_for(dataset)
            except ValidationError as error:
                problem = error.errors()[0]
                key = ".".join(str(part) for part in problem["loc"])
                told = f"'training_on.{dataset}.{key}': {problem['msg']}"
                raise ValueError(told) from None
        return self

    @model_validator(mode="after")
    def _distinct_models(self) -> "Experiment":
        both = sorted(set(self.teachers) & set(self.students))
        if both:
            raise ValueError(f"'{both[0]}' names both a teacher and a student: rename one")
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise ValueError("'seeds' must be distinct and at least one")
        return self
