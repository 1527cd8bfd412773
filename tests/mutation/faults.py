"""One-line faults in the engine's source: a condition turned round, a statement dropped, a comparison off by one.

Each is an edit of the text at a place that `ast` gives, so what a report shows is what a careless hand would have left.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import ndiff
from pathlib import Path
from typing import Final

import utcp

ROOT: Final = Path(__file__).parents[2]
_CORE: Final = Path(utcp.__file__).parent / "core"
# What is looked at, and in which functions of it; None: all
_TEARDOWN: Final[dict[str, frozenset[str] | None]] = {
    "closing.py": None,
    "teardown.py": None,
    "time_wait.py": None,
    "reset.py": None,
    "timeouts.py": None,
    "deadlines.py": None,
    "user_timeout.py": None,
    "states.py": None,
    "text.py": frozenset({"process_text", "_refuse_data"}),
    "arrives.py": frozenset({"_no_connection_arrives", "_check_sequence", "_out_of_window", "_recent"}),
    "acks.py": frozenset({"_advance", "process_ack"}),
    "time_wait_table.py": None,
}
_RECOVERY: Final[dict[str, frozenset[str] | None]] = {
    "recovery.py": None,
    "rack.py": None,
    "recovery_state.py": None,
    "spurious.py": None,
    "scoreboard.py": None,
    "dsack.py": None,
}
GROUPS: Final = {"teardown": list(_TEARDOWN), "recovery": list(_RECOVERY)}
TARGETS: Final = _TEARDOWN | _RECOVERY

_COMPARISONS: Final = {
    "<": ("<=", ">"),
    "<=": ("<", ">"),
    ">": (">=", "<"),
    ">=": (">", "<"),
    "==": ("!=",),
    "!=": ("==",),
    "is": ("is not",),
    "is not": ("is",),
    "in": ("not in",),
    "not in": ("in",),
}
_OPERATORS: Final = {"+": "-", "-": "+", "*": "//", "//": "*", "<<": ">>", ">>": "<<", "&": "|", "|": "&"}
_FUNCTIONS: Final = {
    "seq_lt": ("seq_le", "seq_gt"),
    "seq_le": ("seq_lt", "seq_gt"),
    "seq_gt": ("seq_ge", "seq_lt"),
    "seq_ge": ("seq_gt", "seq_lt"),
    "min": ("max",),
    "max": ("min",),
}
# A state's neighbours: where a slip of the hand, or of the mind, would lead
_STATES: Final = {
    "CLOSED": ("TIME_WAIT",),
    "SYN_SENT": ("SYN_RECEIVED",),
    "SYN_RECEIVED": ("ESTABLISHED",),
    "ESTABLISHED": ("CLOSE_WAIT",),
    "FIN_WAIT_1": ("FIN_WAIT_2", "CLOSING"),
    "FIN_WAIT_2": ("FIN_WAIT_1", "TIME_WAIT"),
    "CLOSE_WAIT": ("LAST_ACK", "CLOSED"),
    "CLOSING": ("LAST_ACK", "TIME_WAIT"),
    "LAST_ACK": ("CLOSING", "CLOSED"),
    "TIME_WAIT": ("CLOSING", "CLOSED"),
}


@dataclass(frozen=True)
class Fault:
    """One edit of one file."""

    file: str  # its name in utcp/core
    function: str  # qualified name, "" for the module's own statements
    statement: int  # line of the statement that the fault is in: who does not reach it cannot notice
    start: int  # byte offsets in the file
    end: int
    text: str  # what stands there instead
    old: str  # the line or lines changed, without indentation
    new: str
    number: int  # 1, or more if the function has several such lines

    @property
    def name(self) -> str:
        again = f" ({self.number})" if self.number > 1 else ""
        return f"{self.file} {self.function or 'module'}{again}"

    @property
    def key(self) -> str:
        """Says the same whatever else changes in the file."""
        return "\n".join(
            (self.name, *(f"- {x}" for x in self.old.split("\n")), *(f"+ {x}" for x in self.new.split("\n")))
        )

    @property
    def place(self) -> str:
        return f"utcp/core/{self.file}:{self.statement}"

    @property
    def module(self) -> str:
        return f"utcp.core.{self.file.removesuffix('.py')}"

    def source(self) -> str:
        """The whole file with the fault in it."""
        return _edited(source_of(self.file), self.start, self.end, self.text)


def source_of(file: str) -> bytes:
    return (_CORE / file).read_bytes()


def functions_of(file: str) -> dict[str, str]:
    """The text of every function of a file, by its qualified name."""
    source = source_of(file).decode()
    found: dict[str, str] = {}
    pending: list[tuple[str, ast.AST]] = [("", ast.parse(source))]
    while pending:
        prefix, parent = pending.pop()
        for node in ast.iter_child_nodes(parent):
            if isinstance(node, ast.ClassDef):
                pending.append((f"{node.name}.", node))
            elif isinstance(node, ast.FunctionDef):
                found[prefix + node.name] = ast.get_source_segment(source, node) or ""
    return found


def all_faults() -> list[Fault]:
    """All of them, file by file, from top to bottom."""
    return [fault for file in TARGETS for fault in faults_of(file)]


def faults_of(file: str) -> list[Fault]:
    source = source_of(file)
    wanted = TARGETS[file]
    lines = source.decode().splitlines()
    found: list[Fault] = []
    seen: set[str] = set()
    repeated: Counter[tuple[str, str, str]] = Counter()
    for edit in _Edits(source).edits():
        if wanted is not None and edit.function not in wanted:
            continue
        after = _edited(source, edit.start, edit.end, edit.text)
        if after in seen:
            continue
        seen.add(after)
        old, new = _difference(lines, after.splitlines())
        repeated[edit.function, old, new] += 1
        number = repeated[edit.function, old, new]
        found.append(Fault(file, edit.function, edit.statement, edit.start, edit.end, edit.text, old, new, number))
    return sorted(found, key=lambda fault: (fault.start, fault.end, fault.text))


def _edited(source: bytes, start: int, end: int, text: str) -> str:
    return (source[:start] + text.encode() + source[end:]).decode()


def _difference(before: list[str], after: list[str]) -> tuple[str, str]:
    first = next(i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b)
    tail = min(len(before), len(after)) - first
    same = next((i for i in range(tail) if before[-1 - i] != after[-1 - i]), tail)
    changed = ndiff(before[first : len(before) - same], after[first : len(after) - same])
    marked = [(line[0], line[2:].strip()) for line in changed if line[0] in "-+"]
    return "\n".join(t for sign, t in marked if sign == "-"), "\n".join(t for sign, t in marked if sign == "+")


@dataclass(frozen=True)
class _Edit:
    function: str
    statement: int
    start: int
    end: int
    text: str


class _Edits:
    """Walks one file's syntax tree."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.tree = ast.parse(source)
        self.offsets = [0]
        for line in source.splitlines(keepends=True):
            self.offsets.append(self.offsets[-1] + len(line))

    def edits(self) -> Iterator[_Edit]:
        yield from self._body(self.tree.body, "", "")

    def _body(self, body: list[ast.stmt], function: str, returns: str) -> Iterator[_Edit]:
        for statement in body:
            yield from self._statement(statement, function, returns)

    def _statement(self, node: ast.stmt, function: str, returns: str) -> Iterator[_Edit]:
        prefix = f"{function}." if function else ""
        if isinstance(node, ast.ClassDef):
            methods: list[ast.stmt] = [x for x in node.body if isinstance(x, ast.FunctionDef)]
            yield from self._body(methods, prefix + node.name, "")
            return
        if isinstance(node, ast.FunctionDef):
            returns = "" if node.returns is None else ast.unparse(node.returns)
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            if returns == "None" and len(body) > 1:
                yield self._edit(body[0], prefix + node.name, body[0].lineno, "return")
            yield from self._body(body, prefix + node.name, returns)
            return
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Assert):
            return
        if not function and _names_a_number(node):
            return
        line = node.lineno
        for start, end, text in self._faults_in(node, function, returns):
            yield _Edit(function, line, start, end, text)
        for block in ("body", "orelse"):
            yield from self._body(getattr(node, block, []), function, returns)

    def _faults_in(self, node: ast.stmt, function: str, returns: str) -> Iterator[tuple[int, int, str]]:
        """In the statement itself, not in its blocks."""
        if isinstance(node, ast.If | ast.While):
            yield *self._span(node.test), self._negated(node.test)
        droppable = ast.Expr | ast.Assign | ast.AugAssign | ast.Continue | ast.Break
        if function and (isinstance(node, droppable) or (isinstance(node, ast.Return) and node.value is None)):
            yield *self._span(node), "pass"
        if isinstance(node, ast.AnnAssign):
            yield from self._expression(node.value) if node.value is not None else ()
            return
        if isinstance(node, ast.AugAssign):
            if isinstance(node.value, ast.Constant):
                yield from self._constant(node.value, counted=True)
            else:
                yield from self._expression(node.value)
            yield from self._between(node.target, node.value, {f"{a}=": (f"{b}=",) for a, b in _OPERATORS.items()})
            return
        if isinstance(node, ast.Return) and returns == "bool" and not isinstance(node.value, ast.Constant | None):
            yield *self._span(node.value), self._negated(node.value)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                yield from self._expression(child)

    def _expression(self, root: ast.expr) -> Iterator[tuple[int, int, str]]:
        if isinstance(root, ast.JoinedStr):
            return  # what a message says is not the protocol
        if isinstance(root, ast.Compare) and len(root.ops) == 1:
            yield from self._between(root.left, root.comparators[0], _COMPARISONS)
        elif isinstance(root, ast.Compare):
            for left, right in zip([root.left, *root.comparators], root.comparators, strict=False):
                yield from self._between(left, right, _COMPARISONS)
        elif isinstance(root, ast.BinOp):
            yield from self._between(root.left, root.right, {a: (b,) for a, b in _OPERATORS.items()})
        elif isinstance(root, ast.BoolOp):
            for left, right in zip(root.values, root.values[1:], strict=False):
                yield from self._between(left, right, {"and": ("or",), "or": ("and",)})
        elif isinstance(root, ast.IfExp):
            yield *self._span(root.test), self._negated(root.test)
        elif isinstance(root, ast.UnaryOp) and isinstance(root.op, ast.Not):
            yield *self._span(root), f"({self._text(root.operand)})"
        elif isinstance(root, ast.Constant):
            yield from self._constant(root)
        elif isinstance(root, ast.Name):
            for other in _STATES.get(root.id, ()) + _FUNCTIONS.get(root.id, ()):
                yield *self._span(root), other
        for child in ast.iter_child_nodes(root):
            if isinstance(child, ast.expr):
                yield from self._expression(child)

    def _constant(self, node: ast.Constant, counted: bool = False) -> Iterator[tuple[int, int, str]]:
        if isinstance(node.value, bool):
            yield *self._span(node), str(not node.value)
        elif isinstance(node.value, int):
            yield *self._span(node), str(node.value + 1)
            if node.value != 1 or not counted:  # else it is the statement that was dropped
                yield *self._span(node), str(node.value - 1)

    def _between(
        self, left: ast.expr, right: ast.expr, others: dict[str, tuple[str, ...]]
    ) -> Iterator[tuple[int, int, str]]:
        """Another operator between two operands."""
        begin, end = self._span(left)[1], self._span(right)[0]
        match = re.search(rb"[a-z]+( +[a-z]+)?|[^\s()\\#\w]+", self.source[begin:end])
        if match is None:
            return
        for other in others.get(match.group().decode(), ()):
            yield begin + match.start(), begin + match.end(), other

    def _negated(self, node: ast.expr) -> str:
        return f"not ({self._text(node)})"

    def _text(self, node: ast.expr) -> str:
        start, end = self._span(node)
        return self.source[start:end].decode()

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (
            self.offsets[node.lineno - 1] + node.col_offset,
            self.offsets[node.end_lineno - 1] + node.end_col_offset,
        )

    def _edit(self, node: ast.stmt, function: str, line: int, text: str) -> _Edit:
        return _Edit(function, line, *self._span(node), text)


def _names_a_number(node: ast.stmt) -> bool:
    """``FIN_WAIT_1: Final = 5``, of a file of such names: which number it is does not matter."""
    return (
        isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and (
            node.target.id in _STATES
            or node.target.id
            in {"LISTEN", "CONNECTED", "READABLE", "EOF", "SENT", "ACKED", "FIN_ACKED", "CLOSED_BIT", "URGENT"}
            | {"OPEN", "RECOVERY", "TIMED_OUT", "_RACK", "_COUNT", "_DUP_ACKS"}
        )
    )
