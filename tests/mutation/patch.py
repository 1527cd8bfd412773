"""Another source for a function that lives, without a new process: its code object is replaced.

Whoever holds the function, by whatever name it was imported, runs the new code from then on.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

import utcp.wire.seq

from .faults import Fault, source_of

_REACHED: Final = "__reached__"


def apply(fault: Fault) -> None:
    """From now on this process runs with the fault."""
    module = importlib.import_module(fault.module)
    source = fault.source()
    for name in ("seq_lt", "seq_le", "seq_gt", "seq_ge"):
        module.__dict__.setdefault(name, getattr(utcp.wire.seq, name))
    for name, value in vars(importlib.import_module("utcp.core.states")).items():
        if name.isupper():
            module.__dict__.setdefault(name, value)
    if not fault.function:
        _run_again(module, ast.parse(source), fault.statement)
        return
    code = next(
        code for code in _codes(compile(source, str(module.__file__), "exec")) if code.co_qualname == fault.function
    )
    _function(module, fault.function).__code__ = code


def watch(file: str, reached: set[tuple[str, int]]) -> None:
    """From now on every statement of a file's functions adds (file, line) to ``reached`` when it is run."""
    module = importlib.import_module(f"utcp.core.{file.removesuffix('.py')}")
    module.__dict__[_REACHED] = lambda line: reached.add((file, line))
    tree = ast.fix_missing_locations(_Watched().visit(ast.parse(source_of(file))))
    for code in _codes(compile(tree, str(module.__file__), "exec")):
        function = _function_or_none(module, code.co_qualname)
        if function is not None:
            function.__code__ = code


class _Watched(ast.NodeTransformer):
    """Puts ``__reached__(line)`` before every statement of every function."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.body = self._block(node.body)
        return node

    def _block(self, body: list[ast.stmt]) -> list[ast.stmt]:
        watched: list[ast.stmt] = []
        for statement in body:
            call = ast.Call(ast.Name(_REACHED, ast.Load()), [ast.Constant(statement.lineno)], [])
            watched.append(ast.copy_location(ast.Expr(call), statement))
            for name in ("body", "orelse"):
                block = getattr(statement, name, [])
                if block:
                    setattr(statement, name, self._block(block))
            watched.append(statement)
        return watched


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _function(module: ModuleType, name: str) -> FunctionType:
    function = _function_or_none(module, name)
    if function is None:
        raise LookupError(f"{module.__name__} has no Python function {name}: is it compiled?")
    return function


def _function_or_none(module: ModuleType, name: str) -> FunctionType | None:
    first, *rest = name.split(".")
    found: Any = vars(module).get(first)
    if isinstance(found, type) and found.__module__ != module.__name__:  # another module has put its own in its place
        ours = (cls for cls in object.__subclasses__() if (cls.__module__, cls.__name__) == (module.__name__, first))
        found = next(ours, None)
    for part in rest:
        found = vars(found).get(part) if hasattr(found, "__dict__") else None
    return found if isinstance(found, FunctionType) else None


def _run_again(module: ModuleType, tree: ast.Module, line: int) -> None:
    """The module's own assignments from ``line`` on, and their results wherever they were imported."""
    for node in tree.body:
        if node.lineno >= line and isinstance(node, ast.Assign | ast.AnnAssign):
            before = dict(vars(module))
            exec(compile(ast.Module([node], []), str(module.__file__), "exec"), vars(module))
            for name, value in before.items():
                new = vars(module).get(name)
                if new is not value and name != "__annotations__":
                    _rebind(name, value, new)


def _rebind(name: str, old: object, new: object) -> None:
    for module in list(sys.modules.values()):
        names = getattr(module, "__dict__", {})
        if names.get(name) is old:
            names[name] = new
