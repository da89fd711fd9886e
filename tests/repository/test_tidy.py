"""The repository keeps its own rules: small modules, documented ones, links that resolve."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import grimp
import pytest

from harness.jobs.registry import JOBS
from harness.words import PROPERTIES

ROOT = Path(__file__).resolve().parents[2]
MOST_MODULE_LINES = 500
MOST_FUNCTION_LINES = 70

# Put together here, so that this file does not name them itself.
MACHINE_PATHS = re.compile(r"(?<![\w.*/])/(?:" + "|".join(("work", "root", "farm")) + ")/")

PRIVATE_WORDS = re.compile(
    r"\b(?:planted\s+(?:bug|manager|order)s?|harness\s+planted|honest\s+(?:manager|job)s?"
    r"|warm\s+server|wardens?|deeds?|outsiders?|by_hand|fair\s+(?:clock|seconds)|symptoms?|menus?"
    r"|told\s+(?:is|are)\s+durable|in\s+vain|never\s+lands)\b",
    re.IGNORECASE,
)
"""Private words for things that the field has a word for; docs/glossary.md has the latter."""

RENAMES = ("`by_hand` is `operator`", "`python -m harness planted` is `python -m harness mutants`")
"""The phrases in which CHANGELOG.md may use a private word, because they say what replaced it."""

ENTRANCES = {
    "harness.__main__",
    "harness.search.generate.strategies",
    "harness.boot.server",
    "harness.boot.command_server",
    "harness.boot.rank_shim",
    "harness.boot.slurmd_supervisor",
    "harness.pytest_generate",
    "harness.pytest_plugin",
    "harness.pytest_repeat",
    "harness.run.fuse.__main__",
    *(f"harness.judge.properties.{name}" for name in PROPERTIES),
    *(job.main.partition(":")[0] for job in JOBS.values()),
    *(str(job.inspection).partition(":")[0] for job in JOBS.values()),
}
"""Modules that are started, found by their names, or that tests of others import."""


@cache
def files(*suffixes: str) -> tuple[Path, ...]:
    """The files that are in the repository, or would be if they were added now."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    paths = (ROOT / name for name in listing.stdout.split("\0") if name)
    return tuple(sorted(p for p in paths if p.is_file() and p.suffix in suffixes))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_there_are_files_to_look_at() -> None:
    assert len(files(".py")) > 20


def test_each_module_says_what_it_is() -> None:
    silent = [
        name_of(path)
        for path in files(".py")
        if path.stat().st_size and not ast.get_docstring(tree_of(path))
    ]
    assert silent == []


def test_a_description_names_the_thing_it_describes() -> None:
    """No "What is left of ..." or "Who has ...": they make the reader guess."""
    begins = re.compile(r'^\s*"""(?:What|Who)\b', re.MULTILINE)
    products = (path for path in files(".py") if name_of(path).startswith(("harness/", "kempner")))
    found = {
        f"{name_of(path)}:{text.count(chr(10), 0, match.start()) + 1}"
        for path in products
        for text in [path.read_text(encoding="utf-8")]
        for match in begins.finditer(text)
    }
    assert found == set()


def test_a_class_name_means_one_thing() -> None:
    places: dict[str, list[str]] = {}
    for path in files(".py"):
        if name_of(path).startswith(("harness/", "kempnerforge/", "benchmarks/")):
            for node in ast.walk(tree_of(path)):
                if isinstance(node, ast.ClassDef):
                    places.setdefault(node.name, []).append(f"{name_of(path)}:{node.lineno}")
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_the_words_of_the_field_are_used_and_not_private_ones() -> None:
    found = [
        f"{name_of(path)}:{line}: {word}"
        for path in files(".py", ".yaml", ".md", ".toml")
        if name_of(path) != "tests/repository/test_tidy.py"
        for line, word in private_words(name_of(path), path.read_text(encoding="utf-8"))
    ]
    assert found == []


def private_words(name: str, text: str) -> Iterator[tuple[int, str]]:
    """Each private word of a file, with its line; a word may be broken over two lines."""
    for match in PRIVATE_WORDS.finditer(without_renames(text) if name == "CHANGELOG.md" else text):
        yield text.count("\n", 0, match.start()) + 1, match.group()


def without_renames(text: str) -> str:
    """A text with its renames blanked out, as long as it was and in the same lines."""
    for rename in RENAMES:
        pattern = r"\s+".join(map(re.escape, rename.split()))
        text = re.sub(pattern, lambda match: re.sub(r"\S", " ", match.group()), text)
    return text


def test_the_changelog_says_each_rename() -> None:
    text = " ".join((ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split())
    assert [rename for rename in RENAMES if rename not in text] == []


def test_the_glossary_has_each_word_once_and_the_products_use_it() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = [word for word in re.findall(r"^\| ([^|`]+?) \|", text, re.MULTILINE) if word != "word"]
    assert sorted(words) == sorted(set(words))
    used = as_words(
        path.read_text(encoding="utf-8")
        for path in files(".py", ".md")
        if name_of(path).startswith(("harness/", "kempnerforge/", "docs/"))
        if path.name != "glossary.md"
    )
    assert [word for word in words if not re.search(rf"\b{normal(word)}s?\b", used)] == []


def as_words(texts: Iterable[str]) -> str:
    return " ".join(normal(text) for text in texts)


def normal(text: str) -> str:
    """Lower-case words with one space between them, the parts of identifiers included."""
    parts = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    return re.sub(r"[_\s-]+", " ", parts).lower()


def test_no_module_is_too_long() -> None:
    lengths = {
        name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files(".py")
    }
    assert {name: size for name, size in lengths.items() if size > MOST_MODULE_LINES} == {}


def test_no_function_is_too_long() -> None:
    found = {
        f"{name_of(path)}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in files(".py")
        for node in functions(tree_of(path))
    }
    assert {name: size for name, size in found.items() if size > MOST_FUNCTION_LINES} == {}


def test_no_file_names_a_place_on_one_machine() -> None:
    suffixes = (".py", ".md", ".toml", ".yaml", ".yml", ".sh", ".cfg", ".txt", "")
    found = [
        f"{name_of(path)}:{number}"
        for path in files(*suffixes)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if MACHINE_PATHS.search(line)
    ]
    assert found == []


def test_each_module_of_the_harness_is_used_by_another() -> None:
    graph = grimp.build_graph("harness", cache_dir=None)
    unused = {
        module
        for module in graph.modules
        if not graph.find_children(module)
        and not graph.find_modules_that_directly_import(module)
        and module not in ENTRANCES
    }
    assert unused == set()


def test_links_of_documents_lead_somewhere() -> None:
    broken = [
        f"{name_of(path)}: {target}"
        for path in files(".md")
        for target in links(path)
        if not resolves(path, target)
    ]
    assert broken == []


def links(path: Path) -> Iterator[str]:
    """The targets of the links of a document that point into the repository."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            yield target


def resolves(path: Path, target: str) -> bool:
    name, _, heading = target.partition("#")
    document = (path.parent / name).resolve() if name else path
    if not document.exists():
        return False
    return not heading or heading in headings(document)


def headings(document: Path) -> set[str]:
    """The anchors of a document, as code hosts make them."""
    lines = document.read_text(encoding="utf-8").splitlines()
    titles = [line.lstrip("#").strip().lower() for line in lines if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("see /" + "work/main", True), ("x.rw/" + "work", False), ("/" + "root/a", True)],
)
def test_a_place_on_one_machine_is_known_when_it_is_seen(text: str, expected: bool) -> None:
    assert bool(MACHINE_PATHS.search(text)) is expected
