"""Show the notebooks as pages of the site, and their outputs on any page.

A page shows the outputs of a notebook's cell with the tag ``name`` by the line
``<!-- output: NOTEBOOK name -->``. mkdocs calls the functions ``on_...`` of this file.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
_INCLUDED = re.compile(r"<!-- output: (\w+) (\w+) -->")
_FENCE = "~~~~"
# HTML stays out of Markdown, which would change it.
_PLACE = '<div data-output="{}/{}"></div>'
_PLACED = re.compile(_PLACE.format(r"(\w+)", r"(\d+)"))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each notebook, and the pictures on it."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        cells = _cells(path.stem)
        name = f"notebooks/{path.stem}.md"
        files.append(File.generated(config, name, content="\n\n".join(_page(path.stem, cells))))
        for index, output in enumerate(_outputs(cells)):
            if "image/png" in output.get("data", {}):
                picture = base64.b64decode("".join(output["data"]["image/png"]))
                uri = f"notebooks/{_picture(path.stem, index)}"
                files.append(File.generated(config, uri, content=picture))
    return files


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Put outputs where a page asks for them."""
    return _INCLUDED.sub(lambda found: _tagged(*found.groups()), markdown)


def on_page_content(content: str, **kwargs: Any) -> str:
    """Put the HTML of outputs in its place."""
    return _PLACED.sub(lambda found: _html(found[1], int(found[2])), content)


def _cells(name: str) -> list[Any]:
    notebook = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text("utf-8"))
    cells = list(notebook["cells"])
    for index, output in enumerate(_outputs(cells)):
        output["index"] = index
    return cells


def _outputs(cells: list[Any]) -> Iterator[Any]:
    for cell in cells:
        yield from cell.get("outputs", ())


def _page(name: str, cells: list[Any]) -> Iterator[str]:
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield source
            continue
        yield f"{_FENCE}python\n{source}\n{_FENCE}"
        for output in cell["outputs"]:
            yield _shown(name, output, "")


def _tagged(name: str, tag: str) -> str:
    cells = [cell for cell in _cells(name) if tag in cell["metadata"].get("tags", ())]
    if len(cells) != 1:
        raise ValueError(f"{name}.ipynb: expected one cell with tag {tag!r}, got {len(cells)}")
    rich = [output for output in cells[0]["outputs"] if "data" in output]
    return "\n\n".join(_shown(name, output, "notebooks/") for output in rich or cells[0]["outputs"])


def _shown(name: str, output: Any, folder: str) -> str:
    data = output.get("data", {})
    if "text/html" in data:
        return _PLACE.format(name, output["index"])
    if "image/png" in data:
        return f"![Output of the code above]({folder}{_picture(name, output['index'])})"
    text = html.escape("".join(output.get("text") or data["text/plain"]).rstrip("\n"))
    return f'<pre class="output">{text}</pre>'


def _picture(name: str, index: int) -> str:
    return f"{name}_{index}.png"


def _html(name: str, index: int) -> str:
    output = next(one for one in _outputs(_cells(name)) if one["index"] == index)
    return '<div class="output">{}</div>'.format("".join(output["data"]["text/html"]))
