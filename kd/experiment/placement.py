"""How a model that only answers lies in memory."""

from typing import Literal

from pydantic import Field

from kd.experiment.base import Strict


class Placement(Strict):
    """Number format, devices and attention of a model that is not trained."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device_map: Literal["auto"] | None = Field(
        default=None, description="spread the layers over all visible GPUs, and memory"
    )
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    quantisation: Literal["8bit", "4bit"] | None = Field(
        default=None, description="weights by bitsandbytes; needs a GPU"
    )
