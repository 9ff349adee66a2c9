"""Joint-entropy losses over the ranks of a real process group, averaged as data-parallel training does."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing, nn

import infoassign as ia
from infoassign_training.engine import ranks

ROWS, SIZES = 23, [3, 4, 4, 2]
EDGES = {2: [[0, 12, 23], [0, 19, 23]], 3: [[0, 9, 9, 23]]}  # of three ranks one has no rows
LOSSES: list[Any] = [
    partial(ia.imsvd_loss, units=SIZES, entropy_weight=0.7),
    partial(ia.music_loss, segment_size=SIZES, invariance="cross-entropy", normalization="grid"),
    partial(ia.imsvd_loss, units=SIZES, diagonal_weight=0),
    partial(ia.music_loss, segment_size=SIZES, diagonal_weight=0.3, invariance_weight=0),
]


def data() -> Tensor:
    """Two views of the samples, (2, rows, 5)."""
    return torch.randn(2, ROWS, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, sum(SIZES))).double()


def gradients(encoder: nn.Module, views: Tensor, loss: Any, **options: Any) -> list[Tensor]:
    """The loss and the gradients of the encoder."""
    encoder.zero_grad()
    value = loss(*(encoder(view) * 3 for view in views), **options)
    value.backward()
    return [value.detach(), *(parameter.grad.clone() for parameter in encoder.parameters())]  # type: ignore[union-attr]


def terms(views: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Entropy terms of ranks are those of all rows."""
    q = [ia.soft_discretize(model()(view) * 3, SIZES) for view in views]
    return ia.entropy_terms(q[0], q[1], SIZES, **options)


def work(rank: int, number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=number)
    encoder = nn.parallel.DistributedDataParallel(model())
    found = []
    for edges in EDGES[number]:
        mine = data()[:, edges[rank] : edges[rank + 1]]
        found += [gradients(encoder, mine, loss, all_gather=ranks.all_gather()) for loss in LOSSES]
        found.append([term.detach() for term in terms(mine, {"all_gather": ranks.all_gather()})])
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("number", [2, pytest.param(3, marks=pytest.mark.deep)])
def test_the_mean_over_ranks_is_one_process(number: int, tmp_path: Path) -> None:
    """Values too; and each rank knows the entropies of all rows."""
    multiprocessing.spawn(work, (number, str(tmp_path)), nprocs=number)
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(number)]
    alone = [*(gradients(model(), data(), loss) for loss in LOSSES), [t.detach() for t in terms(data(), {})]]
    for at, expected in enumerate(alone * len(EDGES[number])):
        parts = [result[at] for result in results]
        for one, *others in zip(expected, *parts, strict=True):
            torch.testing.assert_close(torch.stack(others).mean(dim=0), one, rtol=1e-10, atol=1e-12)
            if len(expected) == 2:
                for other in others:
                    torch.testing.assert_close(other, one, rtol=1e-12, atol=0)


def test_without_a_process_group_there_is_one_rank() -> None:
    assert ranks.all_gather() is None
