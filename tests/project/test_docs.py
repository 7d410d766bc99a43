"""The pages of the documentation name everything that they are about."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import attrs
import documents
import processes
import torch

import functrain as ft

FORMAT = Path(__file__).parents[2] / "docs" / "checkpoint-format.md"


def test_a_checkpoint_is_read_without_functrain(tmp_path: Path) -> None:
    *_, reader = documents.blocks(FORMAT)
    imports = set(re.findall(r"^ *(?:import|from) (\w+)", reader, re.MULTILINE))
    assert imports <= {"safetensors", "xxhash", *sys.stdlib_module_names}
    (tmp_path / "reader.py").write_text(reader)
    path = ft.save(tmp_path / "c", {"params": {"w": torch.ones(3), "b": torch.zeros(2)}}, step=7)
    assert processes.run("reader.py", str(path), cwd=tmp_path).stdout == "7 ['b', 'w']\n"
    file = path / "params.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    assert re.search(
        r"params\.[bw] is damaged", processes.run("reader.py", str(path), cwd=tmp_path).stderr
    )


def test_every_tag_and_field_of_the_format_is_on_its_page(tmp_path: Path) -> None:
    from functrain.checkpoint.format.manifest import parse
    from functrain.checkpoint.format.scalars import _DECODERS
    from functrain.checkpoint.format.structure import _CLASSES, _PLAIN_KINDS, COMPOSITES

    text = FORMAT.read_text()
    kinds = {*_CLASSES, *_PLAIN_KINDS, "sparse_coo", "array", "generator", "subclass", "enum"} - {
        "list"
    }
    for tag in (*_DECODERS, *(f"${kind}" for kind in kinds)):
        assert tag in text, tag
    for kind in COMPOSITES:
        assert kind.removeprefix("sparse_") in text, kind
    path = ft.save(tmp_path / "c", {"w": torch.ones(1), "turned": torch.ones(2, 3).t()}, step=1)
    data = (path / "manifest.json").read_bytes()
    assert parse(data).step == 1
    for name in set(re.findall(rb'"(\w+)":', data)):
        assert f"`{name.decode()}`" in text or name in (
            b"functrain",
            b"torch",
            b"python",
            b"turned",
            b"w",
        ), name


DOCS = FORMAT.parent


def rows(page: str) -> dict[str, list[str]]:
    """The rows of the tables of a page by the name in their first column."""
    lines = [line for line in (DOCS / page).read_text().splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {re.match(r"`(\w+)", row[0])[1]: row for row in cells}  # type: ignore[index]


def test_every_optimizer_is_on_its_page_with_all_its_options() -> None:
    found = rows("optimizers.md")
    bases = {"FromTorch", "Groups", "Optimizer", "OptimizerState"}
    listed = {name for name in ft.optim.__all__ if name[0].isupper()} - bases
    assert listed | {"from_torch"} == set(found) - {"ft"}
    for name in listed - {"Frozen"}:
        fields = [field.alias for field in attrs.fields(getattr(ft.optim, name))]
        options = next(cell for cell in found[name][2:] if cell.startswith("`") or not cell)
        shown = options.strip("`").split(", ") if options else []
        assert shown == [field for field in fields if field not in ("lr", "optimizer")], name


def test_every_schedule_is_on_its_page() -> None:
    bases = {"Observed", "Schedule", "ScheduleState", "TorchSchedule", "as_schedule"}
    assert set(rows("schedules.md")) - {"ft"} == set(ft.schedules.__all__) - bases


def test_the_page_on_compiled_steps_runs() -> None:
    page = DOCS / "compiled.md"
    found, text = documents.run(page), page.read_text()
    assert found["state"].counters.step == found["online"].counters.step == 1
    for name in ("CaptureError", "RecompileWarning", "FallbackWarning", "DonatedStateError"):
        assert f"`{name}`" in text
        assert hasattr(ft.errors, name)


def test_every_listener_is_on_its_page() -> None:
    text = (DOCS / "listeners.md").read_text()
    for name in ft.listeners.__all__:
        assert f"`{name}(" in text or f"`ft.listeners.{name}" in text, name


def test_every_error_that_a_page_names_exists() -> None:
    foreign = {"AssertionError", "ValueError", "KeyError", "TypeError", "DeprecationWarning"}
    pages = [DOCS.parent / "README.md", *DOCS.rglob("*.md")]
    for page in pages:
        for name in re.findall(r"`(?:\w+\.)*([A-Z]\w+(?:Error|Warning))`", page.read_text()):
            assert name in foreign or hasattr(ft.errors, name), (page.name, name)
