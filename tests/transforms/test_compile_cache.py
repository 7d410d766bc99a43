"""Where runs keep compiled libraries, and that nothing in a run directory is run as code."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from compiling import mean_square
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

import functrain as ft
from functrain import tree
from functrain.errors import CompileCacheWarning
from functrain.transforms.compile_cache import cache_directory, cached, private
from functrain.transforms.graph import libraries
from functrain.transforms.graph.libraries import digest, library, prune
from functrain.transforms.torch_internals import inductor_settings

pytestmark = pytest.mark.row(50)

X = torch.linspace(-1, 1, 12).reshape(4, 3)


def program(scale: float = 1.0, **options: Any) -> ft.Program:
    def loss(model: nn.Module, x: Tensor) -> Tensor:
        return mean_square(model, x) * scale

    torch.manual_seed(0)
    return ft.compiled(ft.program(nn.Linear(3, 1), loss, ft.optim.SGD(0.1)), **options)


def directory_of(made: ft.Program) -> Any:
    return made.device_step.lowering.directory  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.long
def test_a_library_planted_in_a_run_directory_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUNCTRAIN_CACHE_DIR", str(tmp_path / "mine" / "cache"))
    theirs = program(scale=-7.0, directory=tmp_path / "theirs")
    other, _ = theirs.train_step(theirs.init(), X)
    first = ft.fit(program(), [X], until="1 step", directory=tmp_path / "first")
    assert tree.diff(first.state.params, other.params) != []
    (kept,) = (tmp_path / "mine" / "cache" / "compiled").glob("*.pt2")
    inode = kept.stat().st_ino
    (library,) = (tmp_path / "theirs").glob("*.pt2")
    planted = tmp_path / "run" / "compiled" / kept.name  # as a run would look for it
    planted.parent.mkdir(parents=True)
    library.rename(planted)
    os.utime(planted, (0, 0))
    run = ft.fit(program(), [X], until="1 step", directory=tmp_path / "run")
    assert tree.diff(run.state, first.state) == []
    assert planted.stat().st_mtime == 0
    assert kept.stat().st_ino == inode  # loaded, not compiled again


def _damaged(directory: Path, graph: Any, given: list[Tensor]) -> Path:
    path = directory / f"{digest(graph, given, {})}.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("step/data", bytes(1000))
    path.write_bytes(path.read_bytes()[:500])
    return path


def test_a_damaged_library_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [torch.ones(8)]
    graph = make_fx(lambda x: [x.sin() + 1])(*given)
    path = _damaged(tmp_path, graph, given)
    asked: list[bool] = []

    def compile_package(made: Path, *rest: Any) -> None:
        asked.append(path.exists())
        made.write_bytes(b"damaged, too")

    monkeypatch.setattr(libraries, "compile_package", compile_package)
    with pytest.raises(RuntimeError):  # it is not compiled again
        library(tmp_path, graph, given, {})
    assert asked == [False]


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "compile_package", lambda *given: None)  # writes nothing
    graph = make_fx(lambda x: [x + 1])(torch.ones(1))
    with pytest.raises(FileNotFoundError):
        library(tmp_path / "cache", graph, [torch.ones(1)], {})
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.slow
@pytest.mark.long
def test_a_damaged_library_is_compiled_again(tmp_path: Path) -> None:
    settings, given = inductor_settings(), [torch.ones(8)]
    graph = make_fx(lambda x: [x.sin() + 1])(*given)
    path = _damaged(tmp_path, graph, given)
    (found,) = library(tmp_path, graph, given, {})(*given)
    torch.testing.assert_close(found, torch.ones(8).sin() + 1)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    assert path.stat().st_size > 1000
    assert inductor_settings() == settings


def _name(function: Any, *given: Tensor, **options: Any) -> str:
    return digest(make_fx(function)(*given), list(given), options)


def _with_constant(value: float) -> str:
    constant = torch.full((3,), value)
    return _name(lambda x: [x + constant], torch.ones(3))


def test_equal_graphs_have_one_name_and_others_another() -> None:
    plus_one = lambda x: [x + 1]  # noqa: E731
    x = torch.ones(4, 4)
    name = _name(plus_one, x)
    assert name == _name(plus_one, torch.zeros(4, 4))
    assert _with_constant(1.0) == _with_constant(1.0) != _with_constant(2.0)
    others = [
        _name(lambda x: [x + 2], x),
        _name(plus_one, x.double()),
        _name(plus_one, torch.ones(4, 8)[:, ::2]),
        _name(plus_one, x, max_autotune=True),
        _name(plus_one, x, post_grad_custom_pre_pass=print),
        _name(plus_one, x, post_grad_custom_pre_pass=print),  # which is never the same again
    ]
    torch.use_deterministic_algorithms(True)
    try:
        others.append(_name(plus_one, x))
    finally:
        torch.use_deterministic_algorithms(False)
    with torch.backends.mkldnn.flags(enabled=False):
        others.append(_name(plus_one, x))
    with torch._inductor.config.patch(max_autotune=True):
        others.append(_name(plus_one, x))
    assert len({name, *others}) == len(others) + 1


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"FUNCTRAIN_CACHE_DIR": "/here", "XDG_CACHE_HOME": "/x"}, "/here"),
        ({"FUNCTRAIN_CACHE_DIR": "~/mine", "HOME": "/h"}, "/h/mine"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/functrain"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/h"}, "/h/.cache/functrain"),
        ({"HOME": "/h"}, "/h/.cache/functrain"),
    ],
)
def test_where_the_cache_is(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name in ("FUNCTRAIN_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_directory() == Path(expected)


def test_it_is_made_for_one_user_only(tmp_path: Path) -> None:
    found = private(tmp_path / "a" / "b" / "c")
    assert stat.S_IMODE(found.stat().st_mode) == 0o700
    assert stat.S_IMODE(found.parent.stat().st_mode) == 0o700
    assert private(found) == found


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
@pytest.mark.parametrize("which", ["", "compiled"])
def test_a_cache_that_others_can_write_to_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, which: str
) -> None:
    private(tmp_path / "cache" / "compiled")
    (tmp_path / "cache" / which).chmod(mode)
    monkeypatch.setenv("FUNCTRAIN_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.warns(CompileCacheWarning, match="others can write to"):
        made = cached(program())
    assert directory_of(made) is None


@pytest.mark.parametrize(
    ("place", "message"),
    [("mine", "belongs to another user"), ("file", "a resumed run compiles again")],
)
def test_a_cache_of_another_user_or_that_cannot_be_made_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, message: str
) -> None:
    private(tmp_path / "mine" / "cache")
    (tmp_path / "file").touch()
    monkeypatch.setenv("FUNCTRAIN_CACHE_DIR", str(tmp_path / place / "cache"))
    if place == "mine":
        owner = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.warns(CompileCacheWarning, match=message):
        assert directory_of(cached(program())) is None


class Turned(nn.Module):
    """Has a complex number among its constants, which Inductor only takes in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 2, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        return (1j * x @ self.weight).abs()


def test_a_step_that_cannot_be_kept_is_compiled_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUNCTRAIN_CACHE_DIR", str(tmp_path / "cache"))
    eager = ft.program(Turned(), mean_square, ft.optim.SGD(lr=0.1))
    with pytest.warns(CompileCacheWarning, match="but not ahead of time"):
        run = ft.fit(
            ft.compiled(eager), [torch.ones(2, 3)], until="1 step", directory=tmp_path / "run"
        )
    expected, _ = eager.train_step(eager.init(), torch.ones(2, 3))
    torch.testing.assert_close(run.state.params, expected.params)


def test_what_the_user_chose_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUNCTRAIN_CACHE_DIR", str(tmp_path / "cache"))
    assert directory_of(cached(program(directory=tmp_path / "d"))) == tmp_path / "d"
    assert directory_of(cached(program(mode="default"))) is None
    assert directory_of(cached(program(backend="eager"))) is None
    assert not (tmp_path / "cache").exists()
    assert directory_of(cached(program())) == tmp_path / "cache" / "compiled"


def test_what_was_used_longest_ago_is_pruned(tmp_path: Path) -> None:
    for age, name in enumerate("dcba"):
        path = tmp_path / f"{name}.pt2"
        path.write_bytes(bytes(100))
        os.utime(path, (age, age))
    (tmp_path / "other").write_bytes(bytes(1000))
    prune(tmp_path, 250)
    names = ["a.pt2", "b.pt2", "other"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    prune(tmp_path, 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt2", "other"]
