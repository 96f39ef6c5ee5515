"""Differences between the probabilities that two models give to one event.

All are 0 for equal probabilities, and greater than 0 otherwise. Each function takes the
logarithms L = ln P of the teacher's probability and L' = ln Q of the student's, [N], and a
temperature tau; some compare P^(1 / tau) and Q^(1 / tau), which are written p and q here.
"""

from collections.abc import Callable
from math import exp, log

import torch
from torch import Tensor

from kd.losses.probabilities import expectation

BEND = 60.0  # e^60 leaves room, in float32, for the sums that follow


def difference_of(name: str, teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """The difference `name` between events of log-probabilities `teacher` and `student`, [N]."""
    return DIFFERENCES[name](teacher, student, temperature)


def binary_kl(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """KL between happening and not happening: p ln(p / q) + (1 - p) ln((1 - p) / (1 - q))."""
    log_p, log_q = _outcomes(teacher, temperature), _outcomes(student, temperature)
    return expectation(log_p, log_p - log_q)


def reverse_binary_kl(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """The other direction: q ln(q / p) + (1 - q) ln((1 - q) / (1 - p))."""
    return binary_kl(student, teacher, temperature)


def binary_kl_limit(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """The limit of tau * binary_kl as tau grows: L - L' + L ln(L' / L)."""
    of_p, of_q = _below_one(teacher), _below_one(student)
    return of_p - of_q + of_p * (of_q / of_p).log()


def absolute_probability(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Simply |p - q|."""
    return ((teacher / temperature).exp() - (student / temperature).exp()).abs()


def absolute_log_ratio(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Simply |L - L'|, at no temperature."""
    return (teacher - student).abs()


def squared_log_ratio(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Known as k2: ln(p / q)^2 / 2."""
    return ((teacher - student) / temperature).square() / 2


def exponential_log_ratio(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Known as k3: p / q - 1 - ln(p / q); beyond p / q = e^60 its tangent, which is finite."""
    ratio = (teacher - student) / temperature
    curve = ratio.clamp(max=BEND).expm1()
    tangent = exp(BEND) * (1 + ratio - BEND)
    return torch.where(ratio > BEND, tangent, curve) - ratio


DIFFERENCES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    difference.__name__: difference
    for difference in (
        binary_kl,
        reverse_binary_kl,
        binary_kl_limit,
        absolute_probability,
        absolute_log_ratio,
        squared_log_ratio,
        exponential_log_ratio,
    )
}


def _outcomes(log_prob: Tensor, temperature: float) -> Tensor:
    """Log-probabilities [N, 2] of an event, e^(log_prob / tau) being its own, and its absence."""
    log_event = _below_one(log_prob) / temperature
    return torch.stack([log_event, log_complement(log_event)], dim=-1)


def _below_one(log_prob: Tensor) -> Tensor:
    """A certain event counts as one that is as likely as the type can tell from certainty."""
    return log_prob.clamp(max=-torch.finfo(log_prob.dtype).eps)


def log_complement(log_prob: Tensor) -> Tensor:
    """Precise ln(1 - e^x) for x < 0, near 0 as well as far from it."""
    middle = -log(2)
    near = (-log_prob.clamp(min=middle).expm1()).log()
    far = (-log_prob.clamp(max=middle).exp()).log1p()
    return torch.where(log_prob > middle, near, far)
