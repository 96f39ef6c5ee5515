"""How other systems' functions and hyper-parameters translate into calls of ours."""

from tests.golden import kl, uld
from tests.golden.calls import SOURCES, Call, Inputs, NotYet, tensor

__all__ = ["SOURCES", "Call", "Inputs", "NotYet", "kl", "tensor", "uld"]
