"""The schedule is the paper's: half the rate, the rate at a tenth of the steps, a tenth of it."""

import pytest
import torch

from kd.experiment.schema import Training
from kd.training.optimisation import build_optimizer, build_scheduler


@pytest.mark.parametrize("steps", range(1, 25))
@pytest.mark.parametrize("warmup", [0.05, 0.1, 0.25])
def test_any_number_of_steps_rises_and_falls(steps, warmup):
    training = Training(learning_rate=1.0, warmup_fraction=warmup)
    optimizer = build_optimizer(torch.nn.Linear(2, 2).parameters(), training)
    scheduler = build_scheduler(optimizer, training, steps)
    rates = [scheduler.get_last_lr()[0]]
    for _ in range(steps - 1):
        optimizer.step()
        scheduler.step()
        rates.append(scheduler.get_last_lr()[0])
    assert rates[0] == pytest.approx(0.5)
    assert all(0.09 < rate <= 1.0 for rate in rates)
    if steps > 2:
        assert rates[-1] == pytest.approx(0.1)


def test_onecycle_as_in_the_papers_code():
    training = Training(learning_rate=2e-6)
    optimizer = build_optimizer(torch.nn.Linear(2, 2).parameters(), training)
    scheduler = build_scheduler(optimizer, training, 100)
    rates, betas = [], []
    for _ in range(100):
        rates.append(scheduler.get_last_lr()[0])
        betas.append(optimizer.param_groups[0]["betas"][0])
        optimizer.step()
        if len(rates) < 100:
            scheduler.step()
    assert rates[0] == pytest.approx(1e-6)
    assert max(rates) == pytest.approx(2e-6)
    assert rates.index(max(rates)) == 9
    assert rates[-1] == pytest.approx(2e-7)
    assert (betas[0], min(betas), betas[-1]) == pytest.approx((0.95, 0.85, 0.95))
    assert all(group["weight_decay"] == 0.1 for group in optimizer.param_groups)
