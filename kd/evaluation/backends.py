"""What generates: transformers, or vLLM where an experiment asks for it.

A backend is given prompts as token ids and gives back the greedy tokens with their
log-probabilities; where an answer ends is decided outside, the same for all. Another backend than
transformers is not taken at its word: both answer the first prompts, and what differs is noted.
"""

import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kd.errors import ModelError
from kd.evaluation.generation import Backend, Generated, generate
from kd.experiment.placement import Placement
from kd.experiment.schema import Generation
from kd.models.adapters import is_adapter


class Vllm:
    """vLLM on the GPUs of this process."""

    name = "vllm"

    def __init__(
        self, folder: Path, settings: Generation, placement: Placement | None, eos: int
    ) -> None:
        """Load the model in `folder`.

        Raises:
            ModelError: vLLM is not installed, or cannot run such a model.
        """
        _refuse_unfit(folder)
        if find_spec("vllm") is None:
            raise ModelError(
                "'generation.backend: vllm' needs vLLM, which is not installed: pip install vllm, "
                "or leave the key out."
            )
        from vllm import LLM, SamplingParams  # type: ignore[import-not-found]

        self._model = LLM(
            model=str(folder),
            dtype=placement.dtype if placement else "float32",
            seed=0,
            disable_log_stats=True,
            generation_config="vllm",  # none of the model's own, as in `kd.evaluation.generation`
        )
        self._settings = SamplingParams(
            temperature=0.0,
            max_tokens=settings.max_new_tokens,
            logprobs=1,
            stop_token_ids=[eos],
            detokenize=False,
        )
        self._eos = eos

    def generate(self, prompts: Sequence[list[int]]) -> list[tuple[Tensor, Tensor]]:
        """See `Backend.generate`."""
        given = [{"prompt_token_ids": prompt} for prompt in prompts]
        answered = self._model.generate(given, self._settings, use_tqdm=False)
        return [self._row(one.outputs[0]) for one in answered]

    def _row(self, output: Any) -> tuple[Tensor, Tensor]:
        tokens = list(output.token_ids)
        found = zip(tokens, output.logprobs, strict=True)
        values = [step[token].logprob for token, step in found]
        if output.finish_reason == "stop" and tokens[-1:] != [self._eos]:
            tokens, values = [*tokens, self._eos], [*values, 0.0]
        return torch.tensor(tokens), torch.tensor(values, dtype=torch.float64)


def _refuse_unfit(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    reason = None
    if is_adapter(folder):
        reason = "reads whole models, not adapters: set 'merge: true' under 'lora'"
    elif config.get("is_encoder_decoder"):
        reason = "runs no encoder-decoder: leave it out of this experiment"
    if reason:
        raise ModelError(
            f"{folder}: 'generation.backend: vllm' {reason}, or set 'backend: transformers'."
        )


def open_backend(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    settings: Generation,
    *,
    placement: Placement | None,
    prompts: Sequence[str],
) -> tuple[Backend | None, dict[str, Any]]:
    """The backend that `settings` name, None for transformers, and what a manifest notes of it.

    The weights of `model` are given up for another backend: memory is not enough for both.

    Raises:
        ModelError: the backend cannot be used here, or for such a model.
    """
    if settings.backend == "transformers":
        return None, {}
    if placement is not None and placement.quantisation is not None:
        raise ModelError("'generation.backend: vllm' reads no weights quantised by bitsandbytes.")
    checked = list(prompts[: settings.check_rows])
    plain = settings.model_copy(update={"backend": "transformers"})
    expected = generate(model, tokenizer, checked, plain)
    model.to("meta")  # type: ignore[arg-type]  # the library's own annotation is wrong
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    backend = Vllm(folder, settings, placement, tokenizer.eos_token_id)
    found = generate(model, tokenizer, checked, settings, backend=backend)
    check = compare(expected, found)
    if check["identical"] < check["rows"]:
        print(
            f"warning: {backend.name} answers {check['identical']} of {check['rows']} prompts as "
            "transformers does; the manifest says where the first one parts",
            file=sys.stderr,
        )
    return backend, {"generation": {"backend": backend.name, "check": check}}


def compare(expected: Sequence[Generated], found: Sequence[Generated]) -> dict[str, Any]:
    """How many answers are the same tokens, and where the first other one parts."""
    pairs = list(zip(expected, found, strict=True))
    others = [row for row, (one, two) in enumerate(pairs) if one.token_ids != two.token_ids]
    report: dict[str, Any] = {"rows": len(pairs), "identical": len(pairs) - len(others)}
    if others:
        one, two = (side.token_ids for side in pairs[others[0]])
        same = [a == b for a, b in zip(one, two, strict=False)]
        token = same.index(False) if False in same else len(same)
        report["first_difference"] = {"row": others[0], "token": token}
    return report
