"""Models made for the tests, from a seed."""

from __future__ import annotations

import json
import random
from pathlib import Path

MIB = 1024 * 1024


def write_files(directory: Path, seed: int = 1, *, megabytes: int = 24) -> Path:
    """Two binary files and some small ones, one in a directory."""
    source = random.Random(seed)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps({"model_type": "test", "seed": seed}))
    (directory / "sub").mkdir()
    (directory / "sub" / "note.txt").write_text(f"seed {seed}\n")
    (directory / "a.bin").write_bytes(source.randbytes(megabytes * MIB // 2))
    (directory / "b.bin").write_bytes(source.randbytes(megabytes * MIB // 2))
    return directory


def same_files(one: Path, other: Path) -> bool:
    names = sorted(str(file.relative_to(one)) for file in one.rglob("*") if file.is_file())
    others = sorted(str(file.relative_to(other)) for file in other.rglob("*") if file.is_file())
    return names == others and all((one / name).read_bytes() == (other / name).read_bytes() for name in names)
