"""Every mistake in a scenario file is named with its file, its line and what is possible."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from harness.faults.kill import Kill
from harness.faults.sigterm import Sigterm
from harness.scenario.errors import ScenarioError
from harness.scenario.read import ScenarioFile, json_schema, read_file, read_scenario

WHOLE = """\
seed: 1
name: "async: flush: rank 1 dies (fsdp2)"
world: {dp_shard: 2}
model: {preset: tiny_vlm, dim: 64, heads: 4}
checkpoint: {interval: 2, async_mode: async}
freeze:
  base: [{module: vision_encoder}]
  schedule: [{start_step: 5, specs: [{module: vision_encoder, frozen: false}]}]
runs:
  - until_step: 6
    faults: [{kill: {rank: 1}, at: {save: 2, phase: flush, operation: write, nth: 2}}]
  - until_step: 8
expect: {resumed_from_step: 2, properties: [resume_exact, clean]}
"""


def complaint(folder: Path, text: str, *, gpus: int = 0) -> str:
    """What reading the text says, with the file called x.yaml."""
    path = folder / "x.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ScenarioError) as caught:
        read_scenario(path, shown="x.yaml", gpus=gpus)
    return str(caught.value)


def test_a_whole_scenario_is_read_with_its_defaults_and_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(WHOLE, encoding="utf-8")
    file = read_file(path, gpus=0)[""]
    assert isinstance(file, ScenarioFile)
    assert file.scenario.world.size == 2
    assert file.scenario.optimizer == "adamw"
    (fault,) = file.scenario.runs[0].faults
    assert isinstance(fault, Kill)
    assert (fault.kill.rank, fault.at.phase, fault.at.when) == (1, "flush", "before")
    assert file.source.lines[("name",)] == 2
    assert file.source.lines[("runs", 0)] == 10
    assert file.source.lines[("runs", 0, "faults", 0, "at", "phase")] == 11
    assert file.source.lines[("expect", "properties", 1)] == 13
    assert file.source.line_of(("runs", 1, "faults", 3)) == 12


def test_an_anchor_and_a_merge_stand_for_what_they_name(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        textwrap.dedent("""\
            name: anchors
            checkpoint: {interval: 1}
            runs:
              - &run
                until_step: 3
                faults: [{sigterm: {}, at: {step: 2}}]
              - <<: *run
                until_step: 4
        """),
        encoding="utf-8",
    )
    file = read_file(path, gpus=0)[""]
    assert isinstance(file, ScenarioFile)
    assert [run.until_step for run in file.scenario.runs] == [3, 4]
    assert isinstance(file.scenario.runs[1].faults[0], Sigterm)
    assert file.source.lines[("runs", 1, "until_step")] == 8
    assert file.source.lines[("runs", 1, "faults")] == 6


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", "x.yaml:1: the file is empty: a scenario needs `name` and `runs`"),
        (
            b"# nothing but a comment\n",
            "x.yaml:1: the file is empty: a scenario needs `name` and `runs`",
        ),
        (b"- name: a\n", "x.yaml:1: a scenario is a mapping, this is a list"),
        (b"\njust text\n", "x.yaml:2: a scenario is a mapping, this is the single value 'just"),
        (b"name: [a\nruns: 1\n", "x.yaml:2: not YAML: while parsing a flow sequence, expected"),
        (b"name: a\n\truns: 1\n", "x.yaml:2: not YAML: while scanning"),
        (b"name: a\nruns: \xff\n", "x.yaml:2: not UTF-8: the byte 0xff is no character"),
        (b"name: a\nruns: \x07\n", "x.yaml:2: not YAML: the character U+0007 is not allowed"),
        (b"name: a\n---\nname: b\n", "x.yaml:2: not YAML: expected a single document in the s"),
        (b"name: a\nruns: *none\n", "x.yaml:2: not YAML: found undefined alias 'none'"),
        (b"name: a\nruns: &r [*r]\n", "x.yaml:2: an alias refers to a value that contains it"),
        (b"name: !!python/name:os.system x\n", "x.yaml:1: not YAML: could not determine a const"),
        (b"name: 2026-02-31\n", "x.yaml:1: name: 2026-02-31 is not a value: day "),
        (b"? [a]\n: 1\n", "x.yaml:1: a key is a word, not a list or a mapping"),
        (b"name: a\nseed: 1\nname: b\n", "x.yaml:3: the key 'name' appears twice, first on l"),
        (b"[" * 5000, "x.yaml: lists or mappings are nested too deeply"),
    ],
)
def test_what_is_not_a_mapping_is_refused(tmp_path: Path, raw: bytes, expected: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(raw)
    with pytest.raises(ScenarioError) as caught:
        read_scenario(path, shown="x.yaml", gpus=0)
    assert str(caught.value).startswith(expected)


def test_aliases_that_multiply_are_refused_before_they_fill_the_memory(tmp_path: Path) -> None:
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12)]
    text = "\n".join(["l0: &l0 [a]", *levels])
    assert complaint(tmp_path, text) == "x.yaml: more than 20000 values once aliases are expanded"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"^no\.yaml: cannot be read: No such file"):
        read_scenario(tmp_path / "no.yaml", shown="no.yaml")
    with pytest.raises(ScenarioError, match=r"cannot be read: Is a directory"):
        read_scenario(tmp_path)


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [
        ("dp_shard: 2", "dp_shard: two", "3: world.dp_shard: found 'two', expected a whole number"),
        ("dp_shard: 2", "dp_shard: 2.0", "3: world.dp_shard: found 2.0, expected a whole number"),
        ("dp_shard: 2", "dp_shard: true", "3: world.dp_shard: found true, expected a whole number"),
        (
            "dp_shard: 2",
            "dp_shard: 0",
            "3: world.dp_shard: found 0: it should be greater than or equal to 1",
        ),
        (
            "dp_shard: 2",
            "dp_shards: 2",
            "3: world.dp_shards: unknown key; known: pp, dp_replicate, dp_shard, tp, schedule,"
            " nodes (did you mean 'dp_shard'?)",
        ),
        (
            "{dp_shard: 2}",
            "2",
            "3: world: found 2, expected a mapping with pp, dp_replicate, dp_shard, tp",
        ),
        (
            "tiny_vlm",
            "tiny_vml",
            "4: model.preset: 'tiny_vml' is not a preset; known: tiny_transformer, tiny_vlm"
            " (did you mean 'tiny_vlm'?)",
        ),
        (
            "phase: flush",
            "phase: flsh",
            "11: runs[0].faults[0].at.phase: 'flsh' is not a phase; known: stage, flush, seal,"
            " publish, prune, load (did you mean 'flush'?)",
        ),
        (
            "operation: write",
            "operation: writes",
            "11: runs[0].faults[0].at.operation: 'writes' is not an operation; known: open, read,"
            " write, fsync, truncate, mkdir, rmdir, unlink, rename, exchange, symlink, link,"
            " sync (did you mean 'write'?)",
        ),
        (
            "kill: {rank: 1}",
            "kil: {rank: 1}",
            "11: runs[0].faults[0]: 'kil' is not a fault; known: kill, sigterm, stop, fail,"
            " short_write, retransmit, delay, hang, starve, raise, exit, clock, power_cut,"
            " second_job,"
            " operator, cut_link, slow_link, time_limit, interrupt (did you mean 'kill'?)",
        ),
        (
            "kill: {rank: 1}, ",
            "",
            "11: runs[0].faults[0]: names no fault; known: kill, sigterm",
        ),
        (
            "kill: {rank: 1}",
            "kill: {rank: 1}, sigterm: {rank: 1}",
            "11: runs[0].faults[0]: one entry of `faults` holds one fault: kill or sigterm",
        ),
        (
            "kill: {rank: 1}",
            "kill: {rank: al}",
            "11: runs[0].faults[0].kill.rank: 'al' is not a rank; expected a whole number or 'all'"
            " (did you mean 'all'?)",
        ),
        (
            "resume_exact",
            "resume_exactly",
            "13: expect.properties[0]: 'resume_exactly' is not a property; known: latest_durable,"
            " whole_or_absent, nothing_lost, agreement, resume_exact, samples_exactly_once,"
            " freeze_consistent, retention, bounded, clean, integrity, no_code_on_load,"
            " latest_forward (did you mean 'resume_exact'?)",
        ),
        (
            "save: 2, ",
            "",
            "11: runs[0].faults[0].at: a point needs `step`, `during`, `phase: load`, `operation`"
            " or `path` through the whole run, or `save` with `phase`, `operation` or `path`",
        ),
        (
            "save: 2, phase: flush",
            "save: 2, step: 3, phase: flush",
            "11: runs[0].faults[0].at: a point is either a `step` or an operation of a `save`,"
            " not both",
        ),
        (
            "schedule: [",
            "schedule: [{start_step: 6, specs: []}, ",
            "6: freeze: start_step must increase from stage to stage, found [6, 5]",
        ),
        ("seed: 1", "sed: 1", "1: sed: unknown key; known: name, job, layout, result, step_line"),
    ],
)
def test_a_wrong_value_is_named_with_its_line(
    tmp_path: Path, right: str, wrong: str, expected: str
) -> None:
    assert right in WHOLE
    found = complaint(tmp_path, WHOLE.replace(right, wrong, 1))
    assert found.startswith(f"x.yaml:{expected}")


def test_all_mistakes_of_a_file_are_listed_in_its_order(tmp_path: Path) -> None:
    text = WHOLE.replace("flush,", "flsh,").replace("dp_shard", "dp").replace("[clean]", "")
    found = complaint(tmp_path, text).splitlines()
    assert [line.split(":")[1] for line in found] == ["3", "11"]
    assert found[0].startswith("x.yaml:3: world.dp: unknown key")


def test_what_is_missing_is_named_on_the_line_of_what_lacks_it(tmp_path: Path) -> None:
    text = "name: a\nruns:\n  - {faults: []}\n"
    assert complaint(tmp_path, text) == (
        "x.yaml:3: runs[0].until_step: is missing; expected a whole number"
    )
    assert complaint(tmp_path, "seed: 1\n").splitlines()[0] == (
        "x.yaml:1: name: is missing; expected text"
    )


@pytest.mark.parametrize("text", ["runs: []\nname: a\n", "runs:\nname: a\n"])
def test_a_scenario_without_runs_is_refused(tmp_path: Path, text: str) -> None:
    assert complaint(tmp_path, text).startswith("x.yaml:1: runs: found ")


def test_the_schema_names_every_key_for_editors() -> None:
    schema = json_schema()
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) >= {"name", "world", "runs", "expect"}
    assert set(schema["$defs"]) >= {"Kill", "Sigterm", "Point"}
