"""How networks are called: in micro-batches that are the same however work is grouped."""

from __future__ import annotations

import pytest
import torch
from kintsugi.core.runtime import LocalHost, rows_per_call, run_model, using_host
from torch import Tensor


def calls_of(rows: int) -> list[int]:
    """Rows of each call of a network that is asked about so many."""
    seen: list[int] = []

    def network(inputs: Tensor) -> Tensor:
        seen.append(inputs.shape[0])
        return 2 * inputs

    asked = torch.arange(rows)
    assert torch.equal(run_model(network, asked), 2 * asked)
    return seen


def test_every_call_has_the_hosts_rows_and_a_rest_is_filled_up() -> None:
    with using_host(LocalHost(device=torch.device("cpu"), micro_batch=4)):
        assert calls_of(5) == [4, 4]


def test_work_of_fewer_rows_is_not_filled_up_and_never_gets_more_than_the_host_gives() -> None:
    with using_host(LocalHost(device=torch.device("cpu"), micro_batch=4)):
        with rows_per_call(2):
            assert calls_of(4) == [2, 2]
            with rows_per_call(1):
                assert calls_of(2) == [1, 1]
            with rows_per_call(3):
                assert calls_of(2) == [2]
        with rows_per_call(9):
            assert calls_of(3) == [4]
        with pytest.raises(ValueError), rows_per_call(1):
            raise ValueError
        assert calls_of(1) == [4]
