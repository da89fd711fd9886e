"""Runs the command line for tests."""

import json
from typing import Any

import pytest

from kempnerforge.cli.__main__ import main


class Cli:
    """Runs commands; ``json`` gives the parsed output."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self.capfd = capfd

    def text(self, *arguments: object) -> tuple[int, str]:
        status = main([str(argument) for argument in arguments])
        output = self.capfd.readouterr()
        return status, output.out + output.err

    def json(self, *arguments: object) -> tuple[int, dict[str, Any]]:
        status, text = self.text(*arguments, "--json")
        found: dict[str, Any] = json.loads(text)
        assert (found["schema"], found["command"], found["exit"]) == (1, arguments[0], status)
        return status, found


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capfd)
