"""Errors have the same names, kinds and faults as in the daemon's documentation, which its own tests tie to its code."""

from __future__ import annotations

import builtins
import pickle
import re

import pytest
from daemon import ROOT

from shoal import errors


def test_errors_are_those_of_the_documentation() -> None:
    import sys

    sys.path.insert(0, str(ROOT / "python"))
    import generate_errors

    text = (ROOT / "docs" / "ERRORS.md").read_text()
    assert generate_errors.TARGET.read_text() == generate_errors.render(text), "run: python3 python/generate_errors.py"
    assert len(generate_errors.rows(text)) > 40


def test_errors_are_those_of_the_code() -> None:
    source = (ROOT / "src" / "base" / "errors.ts").read_text()
    reasons = re.findall(r"(?m)^export class (\w+) extends reason\('(\w+)', '([\w-]+)', (true|false), '(\w+)'\)", source)
    assert {name for name, *_ in reasons} == set(errors.BY_NAME)
    for name, _, kind, retryable, fault in reasons:
        of = errors.BY_NAME[name]("x")
        assert (of.name, of.kind, of.retryable, of.fault) == (name, kind, retryable == "true", fault)


def test_an_error_of_the_daemon_keeps_its_class() -> None:
    error = errors.from_json({"name": "NoProviderError", "message": "nobody has it", "kind": "not-found", "retryable": True, "fault": "network"})
    assert type(error) is errors.NoProviderError
    assert str(error) == "nobody has it"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.name, again.retryable, again.fault, str(again)) == (errors.NoProviderError, "NoProviderError", True, "network", "nobody has it")


def test_an_error_of_a_newer_daemon_keeps_its_name() -> None:
    error = errors.from_json({"name": "NewError", "message": "m", "kind": "failed", "retryable": True, "fault": "node"})
    assert type(error) is errors.ShoalError
    assert error.name == "NewError"
    assert error.retryable


@pytest.mark.parametrize("strange", [None, "x", [], {}, {"name": 1, "message": "m", "kind": "failed"}, {"name": "X"}])
def test_what_is_no_error_becomes_one(strange: object) -> None:
    assert type(errors.from_json(strange)) is errors.ApiError


def test_file_not_found_is_pythons_too() -> None:
    assert issubclass(errors.FileNotFoundError, builtins.FileNotFoundError)
