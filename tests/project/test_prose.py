"""Prose and names are plain English: a list of words, with the reason beside each word.

Checked are docstrings, comments, messages, pages, notebooks, and the names of files, classes,
functions and tests. Text in backticks is code and is not checked.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs
import pytest
from syntax_trees import nodes

ROOT = Path(__file__).parents[2]
Rule = tuple[re.Pattern[str], str]

# Each pattern ignores case and is matched within one text, line breaks read as blanks.
PHRASES = {
    r"\banew\b": "archaic: 'again' or 'from scratch'",
    r"\bpassed over\b": "'skipped' has one verb",
    r"\b(?:takes?|taken|took|taking) up\b(?! (?:memory|room|space|time))": "'resume' or 'load'",
    r"\b(?:take|takes|taken|took) apart\b": "'split' or 'parsed'",
    r"\btold\b(?! apart)": "code is passed a value, receives it, or is notified",
    r"\bcame\b(?! (?:from|with|before|after|first|later|out|in|on)\b)": "messages say 'got'",
    r"\bwhoever\b": "name the subject: the caller, the reader, the user",
    r"\bthat which\b": "name the thing",
    r"\bof which (?:nothing|nobody|none|all|any|no)\b": "begin a new sentence with a subject",
    r"\b(?:strike|strikes|struck)\b": "faults 'happen', retries 'fail'",
    r"\b(?:owe|owes|owed|owing)\b(?! to\b)": "'pending'",
    r"\bhanded over\b": "'passed' or 'returned'",
    r"\bunfilled\b": "say what is missing",
    r"\btolerable\b": "'valid' or 'within the tolerance'",
    r"\bin vain\b": "say what fails",
    r"\bto spare\b": "say how much is left",
    r"\bin the place of\b": "'instead of'",
    r"\bbut for\b": "'except'",
    r"\bwithout a word\b": "'silently'",
    r"\b(?:mend|mends|mended|mending)\b": "'fix' or 'repair'",
    r"\bsound (?:checkpoint|one|copy|part|state|manifest|file|run)s?\b": "'valid' or 'intact'",
    r"\b(?:is|are|was|be|newest) sound\b": "'valid' or 'intact'",
    r"\b(?:is|are|be|was) had\b": "'is available', 'is obtained'",
    r"\b(?:come|comes) to nothing\b": "'fails'",
    r"\b(?:thereof|whereof|wherein|whereby|thereupon|herein|lest|ere)\b": "archaic",
    r"\bshall\b": "'must', 'should' or the present tense",
    r"\b(?:nought|naught)\b": "'zero' or 'nothing'",
}
# At the beginning of a sentence of a docstring, a comment or a paragraph.
OPENINGS = {
    r"Whatever\b": "a clause is no subject: name the thing",
    r"What (?!if\b|about\b|to\b)": "a clause is no subject: name the thing",
    r"Who(?:ever)? ": "a clause is no subject: name the person or the object",
    r"(?:That|Those) (?:of|which)\b": "name the thing again",
    r"Of which\b": "begin with a subject",
}
# As a part of the name of a file, class, function or test.
NAMES = {
    "anew": "again",
    "beside": "say where",
    "came": "got",
    "course": "session",
    "deciding": "name the decision",
    "keeping": "saving or retention",
    "owe": "pending",
    "owed": "pending",
    "owners": "module tensors",
    "settle": "flush",
    "strike": "fail",
    "taken": "say what is done with it",
    "told": "notified",
    "tolerable": "valid",
    "unfilled": "say what is missing",
    "whoever": "name the subject",
}


@attrs.frozen
class Text:
    """A stretch of prose in a file."""

    line: int
    content: str
    sentences: bool = True


def clean(text: str) -> str:
    """Blank out code in backticks, links and addresses, keeping every line break."""
    blank = r"``.*?``|`[^`]*`|\]\([^)]*\)|https?://\S+"
    return re.sub(blank, lambda found: re.sub(r"[^\n]", "_", found[0]), text, flags=re.DOTALL)


def _compiled(patterns: dict[str, str], prefix: str = "", suffix: str = "") -> list[Rule]:
    spaced = {pattern.replace(" ", r"\s+"): reason for pattern, reason in patterns.items()}
    return [
        (re.compile(f"{prefix}{pattern}{suffix}"), reason) for pattern, reason in spaced.items()
    ]


ANYWHERE = _compiled(PHRASES, "(?i)")
# A question may begin with "What".
AT_BEGINNING = _compiled(OPENINGS, r"(?:\A|(?<=\n\n)|(?<=[.:;!]\s))\s*", r"(?![^.]*\?)")


def findings(texts: Iterable[Text]) -> Iterator[tuple[int, str, str]]:
    """Give the line, the words and the reason of each finding."""
    for text in texts:
        content = clean(text.content)
        for pattern, reason in [*ANYWHERE, *(AT_BEGINNING if text.sentences else [])]:
            for found in pattern.finditer(content):
                start = found.end() - len(found[0].lstrip())
                yield text.line + content.count("\n", 0, start), " ".join(found[0].split()), reason


def python_texts(source: str) -> Iterator[Text]:
    """Give the comments, joined where they follow each other, and the strings with blanks."""
    yield from comments(source)
    yield from strings(nodes(ast.parse(source)))


# Several times as fast as `tokenize`.
STRING_OR_COMMENT = re.compile(
    r"""(?s:\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3})"""
    r"""|"(?s:\\.|[^"\\\n])*"|'(?s:\\.|[^'\\\n])*'|(?P<comment>\#[^\n]*)"""
)


def comments(source: str) -> list[Text]:
    joined: list[Text] = []
    line, last, seen = 1, -1, 0
    for found in STRING_OR_COMMENT.finditer(source):
        if found["comment"]:
            line, seen = line + source.count("\n", seen, found.start()), found.start()
            content = found[0].lstrip("# ")
            if line == last + 1:
                joined[-1] = attrs.evolve(joined[-1], content=f"{joined[-1].content}\n{content}")
            else:
                joined.append(Text(line, content))
            last = line
    return joined


def strings(tree: list[ast.AST]) -> Iterator[Text]:
    documented = {
        id(node.body[0].value)
        for node in tree
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in tree:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            documents = id(node) in documented
            if documents or not _is_code(node.value):
                yield Text(node.lineno, node.value, sentences=documents)


def _is_code(text: str) -> bool:
    try:
        ast.parse(text.strip())
    except SyntaxError:
        return False
    return True


def page_texts(source: str) -> Iterator[Text]:
    """Give the paragraphs, cells and items of a page; headings may be clauses."""
    fenced = re.sub(
        r"^( *)```.*?^ *```$|^    .*$",
        lambda found: "\n" * found[0].count("\n"),
        source,
        flags=re.DOTALL | re.MULTILINE,
    )
    for paragraph in re.finditer(r"(?:^.+\n?)+", fenced, re.MULTILINE):
        line = 1 + fenced.count("\n", 0, paragraph.start())
        prose = not paragraph[0].startswith(("#", "|"))
        yield Text(line, paragraph[0], sentences=prose)


def notebook_texts(source: str) -> Iterator[Text]:
    """Give the pages and the comments of a notebook; the line is the number of the cell."""
    for number, cell in enumerate(json.loads(source)["cells"], 1):
        content = re.sub(r"^[%!]", "# ", "".join(cell["source"]), flags=re.MULTILINE)
        of_kind = page_texts if cell["cell_type"] == "markdown" else python_texts
        yield from (attrs.evolve(text, line=number) for text in of_kind(content))


def names(path: Path, tree: list[ast.AST]) -> Iterator[tuple[int, str]]:
    """Give the name of a file, and of each class and function in it."""
    yield 1, path.stem
    for node in tree:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name


def problems(path: Path) -> list[str]:
    """List what is wrong in a file, each with its line and the reason."""
    source = path.read_text()
    where = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
    if path.suffix == ".py":
        tree = nodes(ast.parse(source))
        texts: Iterable[Text] = [*comments(source), *strings(tree)]
        named = names(path, tree)
    else:
        texts = page_texts(source) if path.suffix == ".md" else notebook_texts(source)
        named = iter(())
    listed = [f"{where}:{line}: {words!r}: {why}" for line, words, why in findings(texts)]
    for line, name in named:
        for word in re.findall(r"[A-Z]?[a-z]+", name):
            if word.lower() in NAMES:
                listed.append(f"{where}:{line}: name {name!r}: {NAMES[word.lower()]}")
    return listed


def room(path: Path) -> str:
    """Name the folder of a file that stands in the list: two levels of code, one of the rest."""
    parts = path.relative_to(ROOT).parts
    inner = parts[0] in ("functrain", "tests", "benchmarks") and len(parts) > 2
    return "/".join(parts[:2] if inner else parts[:1])


def rooms() -> dict[str, list[Path]]:
    folders = (
        "functrain",
        "tests",
        "property_tests",
        "benchmarks",
        "docs",
        "notebooks",
        "examples",
    )
    paths = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    for folder in folders:
        paths += [
            path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".md", ".ipynb")
        ]
    found: dict[str, list[Path]] = {}
    for path in sorted(set(paths) - {Path(__file__)}):
        found.setdefault(room(path), []).append(path)
    return found


@pytest.mark.parametrize(("name", "paths"), rooms().items(), ids=lambda part: str(part)[:40])
def test_the_prose_of_a_room_is_plain_english(name: str, paths: list[Path]) -> None:
    found = [problem for path in paths for problem in problems(path)]
    assert not found, "\n".join(found)


def test_findings_have_line_words_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "told.py"
    path.write_text(
        '"""What is told."""\n\n'
        "# A comment that was passed\n# over, and `came` in code.\n"
        'MESSAGE = "expected 1, came 2"\n'
    )
    assert problems(path) == [
        "told.py:3: 'passed over': 'skipped' has one verb",
        "told.py:1: 'told': code is passed a value, receives it, or is notified",
        "told.py:1: 'What': a clause is no subject: name the thing",
        "told.py:5: 'came': messages say 'got'",
        "told.py:1: name 'told': notified",
    ]


@pytest.mark.parametrize(
    "sentence",
    [
        "One pass over the data.",
        "What is a program? A module, a loss and an optimizer.",
        "The error came from a worker.",
        "Two leaves of one name are told apart.",
        "It takes up memory.",
    ],
)
def test_plain_sentences_pass(sentence: str) -> None:
    assert list(findings([Text(1, sentence)])) == []
