"""
Values of a state dict whose bytes cannot be read as they stand. Run as a program: tells of each what became of saving it,
in a process of its own, because one that is read all the same can end the process.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy
import shoal
import torch
from shoal import errors


def faked() -> torch.Tensor:
    with torch._subclasses.fake_tensor.FakeTensorMode():
        return torch.ones(2)


def freed() -> torch.Tensor:
    """As FSDP frees what another rank holds."""
    tensor = torch.ones(1000)
    tensor.untyped_storage().resize_(0)
    return tensor


def freed_view() -> torch.Tensor:
    whole = torch.ones(10, 10)
    view = whole.t()[1:]
    whole.untyped_storage().resize_(80)
    return view


def distributed() -> torch.Tensor:
    from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

    with tempfile.TemporaryDirectory() as directory:
        torch.distributed.init_process_group("gloo", init_method=f"file://{directory}/meet", rank=0, world_size=1)
        return distribute_tensor(torch.ones(4), init_device_mesh("cpu", (1,)), [Shard(0)])


VALUES: dict[str, Callable[[], object]] = {
    "masked": lambda: torch.masked.masked_tensor(torch.ones(2), torch.tensor([True, False])),
    "masked array": lambda: numpy.ma.masked_array([1, 2], [0, 1]),
    "fake": faked,
    "freed": freed,
    "a view of what was freed": freed_view,
    "zeros that are nowhere": lambda: torch._efficientzerotensor(3),
    "distributed": distributed,
    "csr": lambda: torch.eye(2).to_sparse_csr(),
    "mkldnn": lambda: torch.ones(2).to_mkldnn(),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "jagged": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
    "meta": lambda: torch.ones(2, device="meta"),
    "uninitialized": torch.nn.UninitializedParameter,
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8),
    "40 dimensions": lambda: torch.ones([1] * 40),
    "40 dimensions of numpy": lambda: numpy.ones([1] * 40),
    "a module": lambda: torch.nn.Linear(1, 1),
    "a generator": numpy.random.default_rng,
}


def main(what: str, below: Path) -> None:
    try:
        shoal.save_model(None, {"good": torch.ones(1), "bad": VALUES[what]()}, directory=below, socket=below / "none.sock")  # type: ignore[dict-item]
    except errors.UsageError as error:
        assert "'bad'" in str(error)
        assert what != "distributed" or "full_tensor()" in str(error)
        print(f"{what}: refused", flush=True)
    except Exception as error:
        print(f"{what}: {type(error).__name__}", flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for each in sys.argv[2:]:
        print(f"{each}: begun", flush=True)
        main(each, Path(sys.argv[1]))
    os._exit(0)  # without asking what the process group thinks of that
