"""Teachers and students in an experiment file: trained here, in a folder, or on the hub."""

from typing import Annotated, Literal

from pydantic import Field

from kd.experiment.base import Grown, Natural, Positive, Rate, Strict
from kd.experiment.placement import Placement

Architecture = Literal["llama", "mistral", "opt", "gpt_neox", "bloom", "t5"]
Size = Literal["tiny", "small", "medium", "large"]


class TokenizerSpec(Strict):
    """A tokenizer trained on the experiment's own text."""

    algorithm: Literal["byte_bpe", "metaspace_bpe", "unigram", "wordpiece"]
    vocabulary: Annotated[int, Field(ge=300, le=65536)]


class Pretraining(Strict):
    """How a micro model learns the language of its world before anything is distilled."""

    steps: Positive
    batch_size: Positive = 32
    learning_rate: Rate = 2e-3
    rows: Positive = Field(description="rows of each dataset that the model reads")
    shots: list[Natural] = Field(
        default=[0],
        min_length=1,
        description="numbers of examples that its prompts hold, one after the other",
    )
    answers: Literal["own", "quote"] = Field(
        default="own",
        description="'own': the rows' answers; 'quote': the sentences that they were drawn from",
    )


class PromptForm(Strict):
    """The form of a model's prompts on one dataset (`kd.data.prompts`)."""

    style: Literal["plain", "chat"] = "plain"
    system: str = ""
    title: bool = False


class Prompting(Strict):
    """How a model is asked. Students are trained and, once distilled, tested on plain prompts."""

    style: Literal["plain", "chat"] = Field(
        default="plain", description="'chat': turns, in the form of the model's own chat template"
    )
    system: str | dict[str, str] = Field(
        default="", description="instruction before everything else; one text, or one by dataset"
    )
    titles: list[str] = Field(
        default=[], description="datasets whose rows are shown with their titles"
    )

    def on(self, dataset: str) -> PromptForm:
        """The form of prompts on `dataset`."""
        system = self.system if isinstance(self.system, str) else self.system.get(dataset, "")
        return PromptForm(style=self.style, system=system, title=dataset in self.titles)


class _Model(Grown):
    later = frozenset(["load"])

    load: Placement | None = Field(
        default=None, description="how it lies in memory while it answers; training is float32"
    )
    prompt: Prompting = Prompting()
    shots: Natural | dict[str, Natural] = Field(
        default=0, description="few-shot examples in this model's own prompts, by dataset"
    )

    def shots_on(self, dataset: str) -> int:
        """Few-shot examples that this model is shown on `dataset`."""
        return self.shots if isinstance(self.shots, int) else self.shots.get(dataset, 0)


class MicroModel(_Model):
    """A model built from a configuration and trained inside the workflow."""

    source: Literal["micro"]
    architecture: Architecture
    size: Size
    context: Positive = Field(default=512, description="longest sequence, tokens")
    tokenizer: TokenizerSpec
    pretraining: Pretraining
    seed: Natural = 0


class Scale(Strict):
    """A real model's size, as published: for estimates before the model is at hand."""

    parameters: Annotated[float, Field(gt=0, description="of the whole model")]
    vocabulary: Positive = Field(description="columns of its output layer")


class LocalModel(_Model):
    """A model folder in the hub's own format (config.json, *.safetensors, tokenizer)."""

    source: Literal["local"]
    path: str
    scale: Scale | None = None


class HubModel(_Model):
    """A model on the Hugging Face hub, pinned by revision."""

    source: Literal["hub"]
    repo: str
    revision: str = Field(description="a commit; a branch or tag floats, see `kd pin`")
    convert_pickle: bool = Field(
        default=False, description="weights that are no safetensors are read safely and converted"
    )
    scale: Scale | None = None


Model = Annotated[MicroModel | LocalModel | HubModel, Field(discriminator="source")]
