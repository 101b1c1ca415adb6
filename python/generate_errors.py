"""Writes src/shoal/errors.py from docs/ERRORS.md, so that both languages have the same errors.

    python3 python/generate_errors.py            # writes
    python3 python/generate_errors.py --check    # exits 1 when what stands there differs

tests/test_errors.py fails when it was forgotten.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
DOCS = ROOT.parent / "docs" / "ERRORS.md"
TARGET = ROOT / "src" / "shoal" / "errors.py"
KINDS = {"2": "usage", "3": "not-found", "4": "verification", "5": "no-daemon", "130": "aborted", "1": "failed"}
# Names that Python has as well; ours are caught by both.
BUILT_IN = {"FileNotFoundError"}

HEAD = '''"""Every error Shoal raises on purpose: one class per reason, with the same names as in the daemon and its logs.

Made by generate_errors.py from docs/ERRORS.md; do not edit. Compare classes or `name`, never messages: a message says
what happened, to what, and what to do.
"""

from __future__ import annotations

import builtins
from typing import ClassVar


class ShoalError(Exception):
    """The base of them all, and the class of those that this version does not know by name."""

    _kind: ClassVar[str] = "failed"
    _retryable: ClassVar[bool] = False
    _fault: ClassVar[str] = "node"

    def __init__(
        self,
        message: str,
        *,
        name: str | None = None,
        kind: str | None = None,
        retryable: bool | None = None,
        fault: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        #: Stable; what docs/ERRORS.md lists.
        self.name = type(self).__name__ if name is None else name
        #: usage, not-found, verification, no-daemon, aborted or failed.
        self.kind = self._kind if kind is None else kind
        #: Whether the same call may succeed later.
        self.retryable = self._retryable if retryable is None else retryable
        #: Who has to act: caller, peer, network, disk or node.
        self.fault = self._fault if fault is None else fault

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (_again, (type(self), self.message, self.name, self.kind, self.retryable, self.fault))


def _again(of: type[ShoalError], message: str, name: str, kind: str, retryable: bool, fault: str) -> ShoalError:
    return of(message, name=name, kind=kind, retryable=retryable, fault=fault)
'''

FOOT = '''

BY_NAME: dict[str, type[ShoalError]] = {{
{rows}
}}


def from_json(error: object) -> ShoalError:
    """An error that crossed the process boundary, made again under its class."""
    if isinstance(error, dict):
        name, message, kind = error.get("name"), error.get("message"), error.get("kind")
        if isinstance(name, str) and isinstance(message, str) and isinstance(kind, str):
            of = BY_NAME.get(name, ShoalError)
            fault = error.get("fault")
            return of(
                message,
                name=name,
                kind=kind,
                retryable=error.get("retryable") is True,
                fault=fault if isinstance(fault, str) else None,
            )
    return ApiError("the daemon failed without saying why; see its log")
'''


def rows(text: str) -> list[tuple[str, str, str, str, bool, str]]:
    """Of each error: name, what it means, what to do, kind, whether a retry may help, whose fault."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if len(cells) == 6 and re.fullmatch(r"`\w+Error`", cells[0]):
            name, means, do, code, retry, fault = cells
            found.append((name.strip("`"), means, do, KINDS[code], retry == "yes", fault))
    return found


def render(text: str) -> str:
    errors = rows(text)
    parts = [HEAD]
    for name, means, do, kind, retryable, fault in errors:
        bases = f"ShoalError, builtins.{name}" if name in BUILT_IN else "ShoalError"
        doc = f"{means} {do}".replace("\\|", "|").replace("\\", "\\\\").replace('"""', "'''")
        parts.append(
            f'\n\nclass {name}({bases}):\n    """{doc}"""\n\n'
            f'    _kind = "{kind}"\n    _retryable = {retryable}\n    _fault = "{fault}"\n'
        )
    parts.append(FOOT.format(rows="\n".join(f'    "{name}": {name},' for name, *_ in errors)))
    return "".join(parts)


if __name__ == "__main__":
    wanted = render(DOCS.read_text())
    if "--check" in sys.argv[1:]:
        sys.exit(0 if TARGET.read_text() == wanted else f"{TARGET} differs from {DOCS}: run python3 {__file__}")
    TARGET.write_text(wanted)
