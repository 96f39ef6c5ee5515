"""`docs/losses.md`, written from the declarations of the losses: `kd losses --markdown`."""

from itertools import groupby

from kd.losses.catalogue import LossInfo, available_losses
from kd.losses.needs import BATCH, SETUP

INTRODUCTION = """\
# Losses

<!-- Written by `kd losses --markdown`; edit the declarations in kd/losses/ instead. -->

```python
from kd.losses import distillation_loss

loss = distillation_loss(
    "uld",
    student_logits,  # [B, T, V]
    teacher_logits,
    student_labels,  # [B, T]
    teacher_labels,
    reduction="sequence",
    temperature=1.0,
)
```

In the formulas p is the teacher's next-token distribution, q the student's, both at the loss's
temperature; KL is in nats. What all losses share:

- Labels are Hugging Face's: same index as the input ids, -100 where nothing is scored. The causal
  shift happens inside; `shift=False` is for encoder-decoders.
- Divergences are true ones: 0, with a zero gradient, for identical models. Where other code leaves
  out the teacher's entropy, values differ by a constant and gradients do not.
- `temperature` divides the logits of both sides (`teacher_temperature` the teacher's alone).
  `t2_scaling` multiplies the loss by the square of `temperature`; it is off by default.
- `reduction: token` is the mean over all aligned tokens of the batch, or of all micro-batches of a
  step if their common `normalizer` is given; `sequence` is the mean of each sequence's mean.
- Computation is in float32 (float64 for float64 logits), in log space. Columns of logit -inf are
  allowed on both sides. No input is modified. A batch without a scored token gives 0.
- A batch may hold dense logits, or `TeacherLogits`, the stored top-k. What becomes of each loss on
  the latter is said below: *unaffected*; *certified*, the error is at most a stated multiple of the
  dropped mass; *lower bound* of the full value; *unbounded*; *dense*, refused unless nothing was
  dropped.

## What ULD is, and what it is not

ULD = 2 Σ (q₍ᵣ₎ − p₍ᵣ₎)₊ over ranks r: twice the optimal transport cost under the 0/1 cost after
tokens are identified by rank, and equal to it under a cost of 2. With a literally uniform cost of 1
between all pairs, transport always costs 1. ULD is 0 whenever the sorted probabilities agree: a
permutation of the student's vocabulary changes nothing, so it carries no token identity and needs a
cross-entropy term beside it.

It has been suggested that with a certain (one-hot) teacher and one vocabulary ULD reduces to the
cross-entropy. It does not: it is 2 (1 − max q), whichever token the student prefers.

"""


def render_losses() -> str:
    """The page: every loss by family, with formula, needs, options and source."""
    infos = sorted(available_losses().values(), key=lambda info: (info.family.lower(), info.name))
    parts = [INTRODUCTION, *_summary(infos)]
    for family, members in groupby(infos, key=lambda info: info.family):
        parts.append(f"\n## {family[0].upper()}{family[1:]}\n")
        parts.extend(_entry(info) for info in members)
    return "".join(parts)


def _summary(infos: list[LossInfo]) -> list[str]:
    head = "| loss | family | vocabularies | from top-k | needs |\n|---|---|---|---|---|\n"
    return [head, *(_summary_line(info) for info in infos)]


def _summary_line(info: LossInfo) -> str:
    vocabularies = "one" if info.same_vocabulary else "any"
    needs = ", ".join((*info.needs, *info.setup))
    link = f"[{info.name}](#{info.name})"
    return f"| {link} | {info.family} | {vocabularies} | {_truncation(info)} | {needs} |\n"


def _entry(info: LossInfo) -> str:
    options = ", ".join(f"`{name}: {value!r}`" for name, value in info.options.items())
    facts = [
        f"- vocabularies: {'one, shared' if info.same_vocabulary else 'any'}",
        f"- alignments: {', '.join(info.alignments)}",
        f"- from a top-k teacher: {_truncation(info)}{_exceptions(info)}",
        f"- error on stored logits: {_bound(info)}",
        *(f"- needs `{need}`: {BATCH[need].description}" for need in info.needs),
        *(f"- needs once `{need}`: {SETUP[need].description}" for need in info.setup),
        f"- options: {options or 'none'}",
        *(f"- `{name}` is one of {', '.join(values)}" for name, values in info.choices.items()),
        *(f"- `{name}` lies in {interval}" for name, interval in info.ranges.items()),
        *([f"- also called: {', '.join(info.aliases)}"] if info.aliases else []),
        f"- source: {info.source}",
    ]
    return "\n".join(
        [
            f'\n### <a id="{info.name}"></a>{info.name}\n',
            f"$$ {info.formula} $$\n",
            f"```text\n{info.description}\n```\n",
            *facts,
            "",
        ]
    )


def _truncation(info: LossInfo) -> str:
    return info.truncation.replace("_", " ")


def _bound(info: LossInfo) -> str:
    if info.bound is None:
        return "none, no distribution is read" if info.certified_under({}) else "no bound"
    excepted = "".join(
        f"; no bound with `{option}` {' or '.join(map(repr, values))}"
        for option, values in info.unbounded_when.items()
    )
    return f"bounded (`{info.bound}`){excepted}"


def _exceptions(info: LossInfo) -> str:
    return "".join(
        f"; dense with `{option}` {' or '.join(map(repr, values))}"
        for option, values in info.dense_when.items()
    )
