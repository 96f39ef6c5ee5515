"""How far a loss on stored logits may be from the loss on the teacher's whole distributions.

The bound of a loss is a function of the same name in the module that the loss declares (`bound=`
in `kd.losses.declaration.loss`). Its positional parameters are what it needs of a batch, its
keyword-only ones those of the loss's options that matter to it; it returns, for each of N rows, a
number that the difference of both values does not exceed. `error_bounds` calls it.

Every bound has two parts: what the dropped tokens may do, given what is known of the student, and
what the stored numbers themselves may be off (`kd.losses.bounds.storage`). It holds in exact
arithmetic. float32 adds rounding, in proportion to the largest logit: of the losses in nats up to
3e-6 where logits reach 30, 1e-5 where they reach 100, whatever the bound.
"""

from kd.losses.bounds.evaluation import draw_variances, error_bounds

__all__ = ["draw_variances", "error_bounds"]
