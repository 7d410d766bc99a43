"""Compile all kernels of a graph for the processor as one library.

Inductor compiles each kernel by itself. Most of that time goes to the same header, so a graph of
seven kernels takes six times as long as one library that holds them all.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import Any, NamedTuple

from torch._inductor.async_compile import AsyncCompile, get_compile_threads
from torch._inductor.codecache import CppPythonBindingsCodeCache
from torch._inductor.codegen import common
from torch._inductor.codegen.wrapper import PythonWrapperCodegen
from torch._inductor.cpu_vec_isa import valid_vec_isa_list

from functrain.transforms.graph.kept import ENTRY, checksum

_TOGETHER = 24  # kernels in one library, of which a large graph has one for each compiler thread
_ONE_AT_A_TIME = threading.RLock()  # Inductor's writers are the process's
# With what Inductor's template defines; the module's own function returns all of these.
_BINDING = """
static PyObject* k{n}_py(PyObject* self, PyObject* args) {{
    try {{
        if (!PyTuple_CheckExact(args) || PyTuple_GET_SIZE(args) != {count})
            throw std::runtime_error("expected {count} arguments");
        {call}
        Py_RETURN_NONE;
    }} catch (std::exception const& error) {{
        PyErr_SetString(PyExc_RuntimeError, error.what());
        return nullptr;
    }}
}}
static PyMethodDef k{n}_method = {{"k{n}", k{n}_py, METH_VARARGS, ""}};
"""


class Kernel(NamedTuple):
    """The source of a kernel, a C++ function called ``kernel``."""

    types: Sequence[str]
    source: str


class Written(NamedTuple):
    """A module that Inductor has written, and the libraries of its kernels with their names."""

    path: str
    libraries: list[tuple[str, list[str]]]


# Inductor runs the modules that it has written, and hands nothing on.
_WRITTEN = ContextVar[list[Written] | None]("written", default=None)


class Libraries(CppPythonBindingsCodeCache):
    """Inductor's cache of libraries, with the functions of several kernels in one module."""

    entry_function = ENTRY


# From torch 2.15 on Inductor's functions take an array of arguments, before a tuple.
_TAKES_ARRAY = "parse_arg(PyObject* const* args" in Libraries.suffix_template
_ITEMS = "reinterpret_cast<PyTupleObject*>(args)->ob_item" if _TAKES_ARRAY else "args"


class Kernels(AsyncCompile):
    """Stand in for ``AsyncCompile`` in the code of a graph; compile kernels when all are known."""

    def cpp_pybinding(self, argtypes: list[str], source_code: str) -> Any:
        """Return a kernel's source, to be compiled by :meth:`wait`."""
        return Kernel(argtypes, source_code)

    def wait(self, scope: dict[str, Any]) -> None:
        """Replace the sources in a scope by compiled functions."""
        super().wait(scope)
        found = [(name, value) for name, value in scope.items() if isinstance(value, Kernel)]
        parts = [found[start : start + _TOGETHER] for start in range(0, len(found), _TOGETHER)]
        loading = [
            Libraries.load_async(source([kernel for _, kernel in part]), submit_fn=_submit())
            for part in parts
        ]
        libraries = []
        for part, load in zip(parts, loading, strict=True):
            names, library = [name for name, _ in part], load()
            scope.update(zip(names, library.kernels(), strict=True))
            libraries.append((library.__file__, names))
        if (written := _WRITTEN.get()) is not None:
            written.append(Written(scope.get("__file__", ""), libraries))


class OneLibrary(PythonWrapperCodegen):
    """Inductor's Python wrapper of a graph, with :class:`Kernels` in place of its compiler."""

    @staticmethod
    def create(is_subgraph: bool, *args: Any, **options: Any) -> PythonWrapperCodegen:
        """Return the writer of a graph's code; a subgraph is a part of another's."""
        writer: PythonWrapperCodegen
        if is_subgraph:
            writer = PythonWrapperCodegen.create(is_subgraph, *args, **options)
        else:
            writer = OneLibrary()  # type: ignore[no-untyped-call]
        return writer

    def write_header(self) -> None:
        """Write the lines above the kernels."""
        super().write_header()
        self.header.splice(f"from {__name__} import Kernels\nasync_compile = Kernels()")


@contextlib.contextmanager
def one_library() -> Iterator[list[Written]]:
    """Let Inductor write code for the processor with :class:`OneLibrary` inside a ``with``.

    Its value lists the modules that are loaded there.
    """
    common.init_backend_registration()
    with _ONE_AT_A_TIME:
        before = common.device_codegens["cpu"]
        common.device_codegens["cpu"] = common.DeviceCodegen(
            before.scheduling, OneLibrary, before.cpp_wrapper_codegen, before.fx_wrapper_codegen
        )
        written: list[Written] = []
        token = _WRITTEN.set(written)
        try:
            yield written
        finally:
            _WRITTEN.reset(token)
            common.device_codegens["cpu"] = before


def source(kernels: Sequence[Kernel]) -> str:
    """Return the C++ source of a module whose function ``kernels()`` returns all of them."""
    functions, bindings, methods = [], [], []
    for n, kernel in enumerate(kernels):
        functions.append(f"#define kernel k{n}\n{kernel.source}\n#undef kernel\n")
        types = [one.replace("const ", "") for one in kernel.types]
        args = ", ".join(f"parse_arg<{one}>({_ITEMS}, {n})" for n, one in enumerate(types))
        bindings.append(_BINDING.format(n=n, count=len(types), call=f"k{n}({args});"))
        methods.append(f"PyCFunction_New(&k{n}_method, nullptr)")
    return "".join([*functions, _ending(bindings, methods)])


def update_source(text: str, count: int) -> str:
    """Return the source of a module whose ``kernels()`` returns ``update`` of so many tensors.

    The text is the C++ source of ``update(void* const* p)``.
    """
    call = f"""void* p[{count}];
        for (int n = 0; n < {count}; ++n) p[n] = parse_arg<char*>({_ITEMS}, n);
        Py_BEGIN_ALLOW_THREADS
        update(p);
        Py_END_ALLOW_THREADS"""
    binding = _BINDING.format(n=0, count=count, call=call)
    return text + _ending([binding], ["PyCFunction_New(&k0_method, nullptr)"])


def _ending(bindings: list[str], methods: list[str]) -> str:
    return Libraries.suffix_template.format(
        entry_func=Libraries.entry_function,
        arg_len=0,
        extra_parse_arg="".join(bindings),
        call_entry_func=f'return Py_BuildValue("[{"N" * len(methods)}]", {", ".join(methods)});',
    )


def begin_update(text: str, count: int) -> Callable[[], Any]:
    """Begin to compile an update, and return a function that waits for its library."""
    # Inductor's own kernels are vector code by hand, and it tells the compiler to make no more. A
    # square root that may set errno is a call.
    flags = ("-ftree-loop-vectorize", "-fno-math-errno")
    options: dict[str, Any] = {"extra_flags": flags, "submit_fn": _submit()}
    # Where torch can (from 2.13), without waiting for the builds that find vector instructions.
    if "needs_vec_isa" in inspect.signature(Libraries.load_async).parameters:
        options["needs_vec_isa"] = False
    begun: Callable[[], Any] = Libraries.load_async(update_source(text, count), **options)
    return begun


def copy_update(library: Any, path: Path) -> None:
    """Copy the library of an update out of Inductor's cache.

    The copy is followed by its checksum.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as directory:
        copied = Path(shutil.copy(library.__file__, directory))
        with copied.open("ab") as file:  # a loader ignores what follows a library
            file.write(checksum(copied.read_bytes()))
        os.replace(copied, path)


def begin_to_test_instructions() -> Callable[[], Any]:
    """Begin the builds by which Inductor finds vector instructions; return a function that waits.

    They are the same in every process, and are kept. One thread must do all of them, because they
    change the list of instructions meanwhile.
    """
    if (submit := _submit()) is None:
        return valid_vec_isa_list
    settings = copy_context()  # Inductor's are those of a thread
    found: Callable[[], Any] = submit(lambda: settings.run(valid_vec_isa_list)).result
    return found


def _submit() -> Callable[[Callable[[], Any]], Any] | None:
    """Return a function that runs another in a thread, unless Inductor is set to one thread.

    `AsyncCompile.submit` would then compile at once, and wait for a lock that is held.
    """
    return AsyncCompile.submit if get_compile_threads() > 1 else None
