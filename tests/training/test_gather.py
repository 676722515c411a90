"""Losses that compare samples, over two processes and over one."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from janusflow.training import gather, losses

COUNTS = (3, 2)  # rows of the two processes


def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, sum(COUNTS), 4, 3, generator=generator, dtype=torch.float64)


def value(kind, velocity, noise, data):
    if kind == "contrastive":
        return losses.contrastive(velocity, noise, data)
    return losses.dispersive(velocity)


def process(rank, place, found):
    dist.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=2)
    rows = slice(0, COUNTS[0]) if rank == 0 else slice(COUNTS[0], None)
    for kind in ("contrastive", "dispersive"):
        own = [x[rows].clone() for x in batch()]
        own[0].requires_grad_(True)
        each = value(kind, *own)
        each.sum().backward()
        torch.save((each.detach(), own[0].grad), f"{found}/{kind}-{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_compare_the_samples_of_both(tmp_path):
    mp.spawn(process, (str(tmp_path / "place"), str(tmp_path)), nprocs=2)
    for kind in ("contrastive", "dispersive"):
        whole = list(batch())
        whole[0].requires_grad_(True)
        each = value(kind, *whole)
        each.sum().backward()
        parts = [torch.load(tmp_path / f"{kind}-{rank}.pt") for rank in (0, 1)]
        torch.testing.assert_close(torch.cat([own for own, _ in parts]), each.detach())
        tolerance = dict(rtol=1e-5, atol=1e-7)  # dispersive computes in float32
        torch.testing.assert_close(torch.cat([g for _, g in parts]), whole[0].grad, **tolerance)


def test_alone_a_process_has_all_rows():
    rows = torch.arange(3)
    assert gather.all_rows(rows) is rows and not gather.together()
    assert gather.rows_before(rows).tolist() == [2, 0, 1]
