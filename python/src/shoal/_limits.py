"""Bounds, with their why. They mirror src/base/limits.ts where both sides have one."""

from __future__ import annotations

import resource

KIB = 1024
MIB = 1024 * KIB

# One line of NDJSON: the file list of the largest model there can be.
LINE_BYTES_MAX = 96 * MIB
# A whole JSON answer; the largest lists every tensor of a model.
ANSWER_BYTES_MAX = 256 * MIB
# `sun_path` of a Unix socket address holds 108 bytes with the closing NUL (unix(7)).
SOCKET_PATH_BYTES_MAX = 107
# A read looks at whether it is still wanted this often.
READ_BYTES_MAX = 64 * MIB
# How long a load may look for a provider, in seconds: a day, as src/api/schemas.ts has it.
PROVIDER_TIMEOUT_MAX = 86_400
# Reads that wait at the daemon at a time, each a connection of the 1,024 it takes: eight ranks on a host fit in.
WAITS_MAX = 64
# Calls at a time that the daemon answers from what it has in memory, in a pool of asyncio's callers.
SHORT_CALLS_MAX = 8
# As the reference implementation of safetensors has it (MAX_HEADER_SIZE).
SAFETENSORS_HEADER_BYTES_MAX = 100_000_000
SAFETENSORS_TENSORS_MAX = 1_000_000
SAFETENSORS_RANK_MAX = 32
# What a model has beside its weights, when they are replaced: tokenizers have some megabytes. It is copied each time.
CARRIED_BYTES_MAX = 512 * MIB
# An index of a sharded model (model.safetensors.index.json) names each tensor: a million take less.
INDEX_BYTES_MAX = 256 * MIB


def no_more_files() -> str:
    """What to say when the process may open no more (EMFILE)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return f"this process may have {soft} files open and has them; raise that limit with: ulimit -n {'unlimited' if hard == resource.RLIM_INFINITY else hard}"
