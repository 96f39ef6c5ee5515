"""Losses whose gradient is written out: a second implementation of some, for speed alone.

The kernel of a loss is a function of the same name and options in the module that the loss
declares (`kernel=` in `kd.losses.declaration.loss`). It is given a few rows and returns their
values [n] and the gradient of each in the student's logits, [n, V]: no graph, no copies that
autograd would keep. It modifies none of its arguments. The loss itself stays the readable
reference, which the tests compare with its kernel; for what a kernel does not cover (impossible
tokens on one side only, a device that it was not written for) it returns None, and the rows go
to the loss.
"""

from torch import Tensor

Evaluated = tuple[Tensor, Tensor]
"""Values [n] and gradients [n, V] of n rows."""
