"""Writes a captured directory as a scenario file, without needing a YAML library.

Text values are written as JSON strings, which YAML reads the same way. Comments have line breaks
and control characters escaped, so that none ends early or acts on a terminal.
"""

import json
from collections.abc import Iterator

from kempnerforge.cli.capturing import Action, Captured
from kempnerforge.cli.cleaning import clean

__all__ = ["scenario_lines"]


def scenario_lines(captured: Captured) -> Iterator[str]:
    """Yields the lines of the file."""
    arranged = captured.arranged
    yield from _comments(f"captured by kempnerforge-ckpt from {captured.directory}", captured.found)
    yield from _comments("differences from the captured job", arranged.smaller)
    yield from _comments("not expressed below", captured.unexpressed)
    yield from _comments("could not be read", captured.unreadable)
    yield "# a checkpoint does not record these, so defaults apply: model, data, async_mode"
    world = f"pp{arranged.pp} x fsdp{arranged.dp_shard}"
    checkpoints = _count(len(arranged.steps), "checkpoint")
    actions = _count(len(captured.actions), "action")
    yield f'name: "captured: {checkpoints}, {actions} of an operator ({world})"'
    yield f"world: {{pp: {arranged.pp}, dp_shard: {arranged.dp_shard}}}"
    last = max(arranged.steps.values())
    kept = len(arranged.steps)
    yield f"checkpoint: {{interval: {arranged.interval}, keep_last_n: {kept}}}"
    if captured.freeze:
        yield "model: {preset: tiny_vlm}"
        yield "freeze:"
        yield "  base:"
        for module, frozen in captured.freeze:
            yield f"    - {{module: {module}, frozen: {json.dumps(frozen)}}}"
    yield "runs:"
    yield f"  - {{until_step: {last}}}"
    yield f"  - until_step: {last + arranged.interval}"
    if captured.actions:
        yield "    before:"
        yield from (f"      - {_flow(action)}" for action in captured.actions)


def _comments(title: str, lines: tuple[str, ...]) -> Iterator[str]:
    if lines:
        yield f"# {clean(title)}:"
        yield from (f"#   {clean(line)}" for line in lines)


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _flow(action: Action) -> str:
    settings = ", ".join(f"{key}: {json.dumps(value)}" for key, value in action.settings.items())
    return f"{{{action.word}: {{{settings}}}}}"
