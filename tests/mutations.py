"""Plants faults in the code, one at a time, and counts how many of them the tests notice.

    python -m pytest -n auto --cov=styled --cov-context=test --junitxml=report.xml tests
    python -m tests.mutations --coverage .coverage --report report.xml

The first command writes which test runs which line, and how long each takes. The second takes the
same sample of faults each time (chosen by a hash of what they change, so that other changes do not
shuffle it), plants each in a copy of the tree and runs the tests that cover its line, those of the
module's own test file first and quick ones before slow ones, until one fails. A fault that none
notices within the time given to it has survived. Those in `EQUIVALENT` are left out: they change
nothing that anybody could see.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]

SAMPLE = {"intake": 30, "jobs": 60, "delivery": 40, "photos": 40, "engine": 40}
"""How many faults are planted in each folder."""

BROKEN = 70
"""What a child exits with that could not run pytest."""

_AS_FALSE = "whoever asks treats None as False"

EQUIVALENT: dict[str, str] = {
    "styled/delivery/atomic.py:_link:return:False#0": _AS_FALSE,
    "styled/photos/containers.py:_jpeg_is_cut:return:False#0": _AS_FALSE,
}
"""Faults that change nothing, by their name, and why."""

COMPARISONS = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
ARITHMETIC = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*"}


@dataclass(frozen=True)
class Mutation:
    """One fault: a stretch of a file, and what is put in its place."""

    path: str
    """Relative to the root."""
    function: str
    kind: str
    line: int
    start: int
    """In bytes from the beginning of the file, as is `end`."""
    end: int
    before: str
    after: str
    occurrence: int = 0
    """How many alike stand above it in the same function."""

    @property
    def name(self) -> str:
        """What it is called whatever is changed elsewhere in the file."""
        short = " ".join(self.before.split())[:60]
        return f"{self.path}:{self.function}:{self.kind}:{short}#{self.occurrence}"

    @property
    def folder(self) -> str:
        """The folder of `styled` that it is in."""
        return Path(self.path).parts[1]

    def planted(self, source: bytes) -> bytes:
        """Return the file with it."""
        return source[: self.start] + self.after.encode() + source[self.end :]


class _Finder(ast.NodeVisitor):
    """Collects all faults that a file offers."""

    def __init__(self, path: str, source: bytes) -> None:
        self.path, self.source = path, source
        self.lines = [0]
        for line in source.splitlines(keepends=True):
            self.lines.append(self.lines[-1] + len(line))
        self.functions: list[str] = []
        self.found: list[Mutation] = []
        self.seen: Counter[tuple[str, str, str]] = Counter()

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Return where a node begins and ends, in bytes."""
        first, last = node.lineno, node.end_lineno  # type: ignore[attr-defined]
        start = self.lines[first - 1] + node.col_offset  # type: ignore[attr-defined]
        return start, self.lines[last - 1] + node.end_col_offset  # type: ignore[attr-defined]

    def text(self, start: int, end: int) -> str:
        """Return what stands there."""
        return self.source[start:end].decode()

    def offer(self, kind: str, line: int, start: int, end: int, after: str) -> None:
        """Add a fault."""
        before, function = self.text(start, end), ".".join(self.functions)
        key = (function, kind, " ".join(before.split())[:60])
        self.found.append(
            Mutation(self.path, function, kind, line, start, end, before, after, self.seen[key])
        )
        self.seen[key] += 1

    def between(self, left: ast.AST, right: ast.AST) -> tuple[int, int]:
        """Return the stretch between two operands, without any brackets around it."""
        start, end = self.span(left)[1], self.span(right)[0]
        text = self.text(start, end)
        return start + len(text) - len(text.lstrip(" )\n")), end - len(text) + len(
            text.rstrip(" (\n")
        )

    # Whatever is asked of a class or function is asked of its body alone: not of annotations.
    def _enter(self, node: ast.FunctionDef | ast.ClassDef) -> None:
        self.functions.append(node.name)
        for statement in node.body:
            self.visit(statement)
        self.functions.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._enter(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._enter(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            start, end = self.between(left, right)
            self.offer("compare", left.end_lineno or node.lineno, start, end,
                       COMPARISONS[type(operator)])  # fmt: skip
            left = right
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        start, end = self.between(node.values[0], node.values[1])
        self.offer("and-or", node.lineno, start, end,
                   "or" if isinstance(node.op, ast.And) and len(node.values) == 2 else "and"
                   )  # fmt: skip
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            start, end = self.span(node)
            inner = self.text(*self.span(node.operand))
            self.offer("not", node.lineno, start, end, f"bool({inner})")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        strings = any(isinstance(side, ast.JoinedStr) or
                      (isinstance(side, ast.Constant) and isinstance(side.value, str | bytes))
                      for side in (node.left, node.right))  # fmt: skip
        if type(node.op) in ARITHMETIC and not strings:
            start, end = self.between(node.left, node.right)
            self.offer("arithmetic", node.lineno, start, end, ARITHMETIC[type(node.op)])
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        start, end = self.span(node)
        if isinstance(node.value, bool):
            self.offer("constant", node.lineno, start, end, str(not node.value))
        elif isinstance(node.value, int):
            self.offer("constant", node.lineno, start, end, f"({self.text(start, end)} + 1)")

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            start, end = self.span(node)
            self.offer("call", node.lineno, start, end, "None")
        self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        start, _ = self.span(node.body[0])
        _, end = self.span(node.body[-1])
        if self.text(start, end) != "raise":
            self.offer("except", node.lineno, start, end, "raise")
        for statement in node.body:
            self.visit(statement)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None and not (
            isinstance(node.value, ast.Constant) and node.value.value is None
        ):
            start, end = self.span(node.value)
            self.offer("return", node.lineno, start, end, "None")
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        start, end = self.span(node.test)
        self.offer("if", node.lineno, start, end, f"not ({self.text(start, end)})")
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Words are not looked at; their places are not told well by Python 3.11 either."""

    def visit_Raise(self, node: ast.Raise) -> None:
        """Nor are the words of an error."""


def mutations(root: Path, folder: str) -> list[Mutation]:
    """Return all faults that a folder offers, in an order that other changes hardly disturb."""
    found: list[Mutation] = []
    for path in sorted((root / "styled" / folder).rglob("*.py")):
        source = path.read_bytes()
        finder = _Finder(str(path.relative_to(root)), source)
        finder.visit(ast.parse(source))
        for mutation in finder.found:
            with contextlib.suppress(SyntaxError):
                compile(mutation.planted(source), "planted", "exec")
                found.append(mutation)
    return sorted(found, key=lambda m: hashlib.sha256(m.name.encode()).digest())


@dataclass
class Covering:
    """Which tests run which line, and how long they take; those that fail anyway are left out."""

    tests: dict[tuple[str, int], set[str]] = field(default_factory=lambda: defaultdict(set))
    of_file: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    at_import: set[tuple[str, int]] = field(default_factory=set)
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, coverage_file: Path, report: Path) -> Covering:
        """Read coverage's data and pytest's report."""
        from coverage import CoverageData

        covering = cls()
        failing = set()
        for case in ElementTree.parse(report).iter("testcase"):
            # classname: the file's path with dots, and perhaps a class; no test here has one.
            test = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
            covering.seconds[test] = float(case.get("time", 0))
            if any(part.tag in ("failure", "error") for part in case):
                failing.add(test)
        data = CoverageData(str(coverage_file))
        data.read()
        for path in data.measured_files():
            relative = path[path.index("styled/") :] if "styled/" in path else path
            for line, contexts in data.contexts_by_lineno(path).items():
                tests = {context.rsplit("|", 1)[0] for context in contexts if context} - failing
                covering.tests[relative, line] |= tests
                covering.of_file[relative] |= tests
                if not tests:
                    covering.at_import.add((relative, line))
        return covering

    def of(self, mutation: Mutation, limit_seconds: float) -> list[str]:
        """Return the tests for a fault, the likeliest to notice it and quickest first."""
        place = mutation.path, mutation.line
        tests = self.of_file[mutation.path] if place in self.at_import else self.tests[place]
        own = f"test_{Path(mutation.path).stem.strip('_')}.py"
        folder = f"tests/{mutation.folder}/"

        def order(test: str) -> tuple[int, float, str]:
            near = 0 if own in test else 1 if test.startswith(folder) else 2
            return near, self.seconds.get(test, 0.1), test

        chosen: list[str] = []
        total = 0.0
        for test in sorted(tests, key=order):
            total += self.seconds.get(test, 0.1)
            if chosen and total > limit_seconds:
                break
            chosen.append(test)
        return chosen


def _in_child(tree: Path, tests: list[str], log: Path) -> None:
    """Run tests in a forked process, with the modules of a tree; end with pytest's exit code."""
    import pytest

    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for standard in (1, 2):
        os.dup2(output, standard)
    os.setsid()
    os.chdir(tree)
    os.environ["PYTHONPATH"] = str(tree)
    sys.path.insert(0, str(tree))
    for name in [name for name in sys.modules if name.split(".")[0] in ("styled", "tests")]:
        del sys.modules[name]
    code = pytest.main(
        ["-x", "-q", "--timeout=60", "-p", "no:cacheprovider", "-p", "no:cov",
         "--basetemp", str(tree / "tmp"), *tests]
    )  # fmt: skip
    sys.stdout.flush()
    os._exit(int(code))


def caught(tree: Path, mutation: Mutation, tests: list[str], seconds: float) -> str:
    """Plant a fault in a tree, run the tests, and take it out; return what came of it."""
    if not tests:
        return "uncovered"
    path = tree / mutation.path
    source = path.read_bytes()
    path.write_bytes(mutation.planted(source))
    try:
        child = os.fork()
        if child == 0:
            try:
                _in_child(tree, tests, tree / "log")
            except BaseException:  # noqa: BLE001  # a child must not go on as its parent
                traceback.print_exc()
            finally:
                os._exit(BROKEN)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                if code in (0, 1):
                    return "caught" if code else "survived"
                said = (tree / "log").read_text()[-2000:]
                if code in (3, BROKEN):  # 3: an error of pytest itself
                    raise RuntimeError(f"pytest could not be run:\n{said}")
                return f"caught (exit code {code})"  # not even collected, or killed
            time.sleep(0.05)
        return "caught (too slow)"
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)
        path.write_bytes(source)
        shutil.rmtree(tree / "tmp", ignore_errors=True)


@contextlib.contextmanager
def trees(count: int) -> Iterator[list[Path]]:
    """Copy the code so often, into memory."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="styled-mutations-") as folder:
        copies = []
        for number in range(count):
            copy = Path(folder, str(number))
            for part in ("styled", "tests", "systemd"):
                shutil.copytree(ROOT / part, copy / part)
            for file in ROOT.glob("*.*"):
                if file.is_file():
                    shutil.copy(file, copy)
            copies.append(copy)
        yield copies


def table(results: Iterable[tuple[Mutation, str]]) -> str:
    """Return the share that was caught, by folder."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for mutation, result in results:
        counts[mutation.folder][result.split()[0]] += 1
    lines = ["folder     planted  caught  survived  uncovered  share"]
    for folder, count in counts.items():
        total = count.total()
        lines.append(
            f"{folder:<10} {total:>7} {count['caught']:>7} {count['survived']:>9}"
            f" {count['uncovered']:>10} {count['caught'] / total:>6.0%}"
        )
    return "\n".join(lines)


def main(words: list[str]) -> int:
    """Plant the faults, print those that survive and a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("--coverage", type=Path, required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--folders", nargs="*", default=list(SAMPLE))
    parser.add_argument("--seconds", type=float, default=60, help="of tests for each fault")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", help="those whose name contains this")
    options = parser.parse_args(words)

    # What takes long to import and is not changed: each child has it already.
    os.environ["OMP_NUM_THREADS"] = "1"
    # A fault of the same length, planted within the same second, would not be compiled anew.
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    import numpy, PIL.Image, pydantic, pytest, rich, skimage.data, structlog  # noqa: E401, F401, I001
    import torch, torchvision.models, typer.testing, watchdog.observers  # noqa: E401, F401

    torch.set_num_threads(1)
    covering = Covering.read(options.coverage, options.report)
    chosen: list[Mutation] = []
    for folder in options.folders:
        offered = mutations(ROOT, folder)[: SAMPLE[folder]]
        chosen += [mutation for mutation in offered if mutation.name not in EQUIVALENT]
    if options.only:
        chosen = [m for m in chosen if options.only in m.name]
    results: list[tuple[Mutation, str]] = []
    with trees(options.workers) as copies, ThreadPoolExecutor(options.workers) as pool:

        def one(mutation: Mutation) -> tuple[Mutation, str]:
            tree = copies.pop()
            try:
                tests = covering.of(mutation, options.seconds)
                return mutation, caught(tree, mutation, tests, 3 * options.seconds)
            finally:
                copies.append(tree)

        for mutation, result in pool.map(one, chosen):
            results.append((mutation, result))
            print(f"{result:<10} {mutation.name}  (line {mutation.line})", flush=True)
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
