"""Mutation testing: plants faults in the code, one at a time, and counts how many the tests catch.

    python -m pytest -n auto --cov=styled --cov-context=test --junitxml=report.xml tests
    python -m tests.mutations --coverage .coverage --report report.xml

The first command records which test runs which line, and how long each test takes. The second
selects a sample of faults by a hash of what they change, so that the sample stays the same when
other code changes. It plants each fault in a copy of the tree and runs the tests that cover its
line until one fails: those of the module's own test file first, and quick ones before slow ones. A
fault that no test catches within its time limit has survived. Faults in `EQUIVALENT` are left out:
they do not change the behaviour.
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

SAMPLE = {
    "intake": 30, "jobs": 30, "job_io": 20, "journal": 15, "codec": 10, "hooks": 5, "delivery": 40,
    "photos": 40, "engine": 40,
}  # fmt: skip
"""The number of faults that are planted in each folder."""

BROKEN = 70
"""Exit code of a child process that could not run pytest."""

_AS_FALSE = "callers treat None as False"
_EQUAL_AT_LIMIT = "both branches give the same value there, or no value is there"

EQUIVALENT: dict[str, str] = {
    "styled/atomic.py:_link:return:False#0": _AS_FALSE,
    "styled/delivery/names.py:ReservedNames.hold:return:False#0": _AS_FALSE,
    "styled/photos/color_spaces.py:_curve_tag:compare:<=#0": _EQUAL_AT_LIMIT,
    "styled/photos/completeness.py:_bmp_is_truncated:return:False#0": _AS_FALSE,
    "styled/photos/containers.py:_jpeg_is_truncated:return:False#0": _AS_FALSE,
    "styled/photos/hdr.py:_compress:compare:<=#0": _EQUAL_AT_LIMIT,
    "styled/photos/profiles.py:Profile.is_same_rgb_space:constant:True#0": "lengths are equal",
}
"""Faults that do not change the behaviour: their names, and why they have no effect."""

COMPARISONS = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
ARITHMETIC = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*"}


@dataclass(frozen=True)
class Mutation:
    """One fault: a part of a file, and the text that replaces it."""

    path: str
    """Relative to the root."""
    function: str
    kind: str
    line: int
    start: int
    """Byte offset in the file, as is `end`."""
    end: int
    before: str
    after: str
    occurrence: int = 0
    """Number of equal faults above it in the same function."""

    @property
    def name(self) -> str:
        """A name that does not depend on other code in the file, such as line numbers."""
        short = " ".join(self.before.split())[:60]
        return f"{self.path}:{self.function}:{self.kind}:{short}#{self.occurrence}"

    @property
    def folder(self) -> str:
        """The folder of `styled` that it is in."""
        return Path(self.path).parts[1]

    def planted(self, source: bytes) -> bytes:
        """Return the file's content with the fault."""
        return source[: self.start] + self.after.encode() + source[self.end :]


class _Finder(ast.NodeVisitor):
    """Collects all possible faults of a file."""

    def __init__(self, path: str, source: bytes) -> None:
        self.path, self.source = path, source
        self.lines = [0]
        for line in source.splitlines(keepends=True):
            self.lines.append(self.lines[-1] + len(line))
        self.functions: list[str] = []
        self.mutations: list[Mutation] = []
        self.seen: Counter[tuple[str, str, str]] = Counter()

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Return the byte offsets of a node's start and end."""
        first, last = node.lineno, node.end_lineno  # type: ignore[attr-defined]
        start = self.lines[first - 1] + node.col_offset  # type: ignore[attr-defined]
        return start, self.lines[last - 1] + node.end_col_offset  # type: ignore[attr-defined]

    def text(self, start: int, end: int) -> str:
        """Return the source text between two byte offsets."""
        return self.source[start:end].decode()

    def offer(self, kind: str, line: int, start: int, end: int, after: str) -> None:
        """Add a fault."""
        before, function = self.text(start, end), ".".join(self.functions)
        assert before != after, f"{self.path}:{line}: {before} is no fault"
        key = (function, kind, " ".join(before.split())[:60])
        self.mutations.append(
            Mutation(self.path, function, kind, line, start, end, before, after, self.seen[key])
        )
        self.seen[key] += 1

    def between(self, left: ast.AST, right: ast.AST) -> tuple[int, int]:
        """Return the span of the operator between two operands, without surrounding brackets."""
        start, end = self.span(left)[1], self.span(right)[0]
        text = self.text(start, end)
        return start + len(text) - len(text.lstrip(" )\n")), end - len(text) + len(
            text.rstrip(" (\n")
        )

    # Only the bodies of classes and functions are visited, not annotations or decorators.
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
        is_and = isinstance(node.op, ast.And)
        self.offer("and-or", node.lineno, start, end, "or" if is_and else "and")
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
        """Skip f-strings: texts are not mutated, and Python 3.11 has wrong offsets for them."""

    def visit_Raise(self, node: ast.Raise) -> None:
        """Skip the texts of errors."""


def mutations(root: Path, folder: str) -> list[Mutation]:
    """Return all possible faults of a folder, in the order of the hash of their names."""
    valid: list[Mutation] = []
    for path in sorted((root / "styled" / folder).rglob("*.py")):
        source = path.read_bytes()
        finder = _Finder(str(path.relative_to(root)), source)
        finder.visit(ast.parse(source))
        for mutation in finder.mutations:
            with contextlib.suppress(SyntaxError):
                compile(mutation.planted(source), "planted", "exec")
                valid.append(mutation)
    return sorted(valid, key=lambda m: hashlib.sha256(m.name.encode()).digest())


@dataclass
class LineCoverage:
    """Which tests run which line, and how long they take; tests that fail are left out."""

    tests: dict[tuple[str, int], set[str]] = field(default_factory=lambda: defaultdict(set))
    of_file: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    at_import: set[tuple[str, int]] = field(default_factory=set)
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, coverage_file: Path, report: Path) -> LineCoverage:
        """Read coverage's data and pytest's report."""
        from coverage import CoverageData

        coverage = cls()
        failing = set()
        for case in ElementTree.parse(report).iter("testcase"):
            # classname: the file's path with dots, then the class; no test here is in a class.
            test = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
            coverage.seconds[test] = float(case.get("time", 0))
            if any(part.tag in ("failure", "error") for part in case):
                failing.add(test)
        data = CoverageData(str(coverage_file))
        data.read()
        for path in data.measured_files():
            relative = path[path.index("styled/") :] if "styled/" in path else path
            for line, contexts in data.contexts_by_lineno(path).items():
                tests = {context.rsplit("|", 1)[0] for context in contexts if context} - failing
                coverage.tests[relative, line] |= tests
                coverage.of_file[relative] |= tests
                if not tests:
                    coverage.at_import.add((relative, line))
        return coverage

    def of(self, mutation: Mutation, limit_seconds: float) -> list[str]:
        """Return the tests for a fault, the most likely to catch it first, then the quickest.

        The tests' total time is limited to `limit_seconds`, except that the first one is always
        included.
        """
        line_key = mutation.path, mutation.line
        tests = self.of_file[mutation.path] if line_key in self.at_import else self.tests[line_key]
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
    """Run tests on the modules of a tree, then exit with pytest's exit code.

    Must be called in a forked process.
    """
    import pytest

    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
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


def plant_and_test(tree: Path, mutation: Mutation, tests: list[str], seconds: float) -> str:
    """Plant a fault in a tree, run the tests, and remove the fault.

    Returns:
        "uncovered", "survived" or "caught", the last possibly with an explanation in parentheses.

    Raises:
        RuntimeError: If pytest could not be run.
    """
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
            except BaseException:  # noqa: BLE001  # the child must not run the parent's code
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
                log_tail = (tree / "log").read_text()[-2000:]
                if code in (3, BROKEN):  # 3: an error of pytest itself
                    raise RuntimeError(f"pytest could not be run:\n{log_tail}")
                return f"caught (exit code {code})"  # collection failed, or the child was killed
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
    """Make `count` copies of the code, in memory."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="styled-mutations-") as folder:
        copies = []
        for index in range(count):
            copy = Path(folder, str(index))
            for part in ("styled", "tests", "systemd"):
                shutil.copytree(ROOT / part, copy / part)
            for file in ROOT.glob("*.*"):
                if file.is_file():
                    shutil.copy(file, copy)
            copies.append(copy)
        yield copies


def table(results: Iterable[tuple[Mutation, str]]) -> str:
    """Return a table with the share of caught faults, by folder."""
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


def main(args: list[str]) -> int:
    """Plant the faults; print the result of each, and a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("--coverage", type=Path, required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--folders", nargs="*", default=list(SAMPLE))
    parser.add_argument("--seconds", type=float, default=60, help="of tests for each fault")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", help="those whose name contains this")
    options = parser.parse_args(args)

    # The slow imports below are done once, before forking: each child inherits them.
    os.environ["OMP_NUM_THREADS"] = "1"
    # Cached bytecode is keyed by mtime (in seconds) and size: a fault of the same length, planted
    # within the same second, would not be compiled.
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    import numpy, PIL.Image, pydantic, pytest, rich, skimage.data, structlog  # noqa: E401, F401, I001
    import torch, torchvision.models, typer.testing, watchdog.observers  # noqa: E401, F401

    torch.set_num_threads(1)
    coverage = LineCoverage.read(options.coverage, options.report)
    chosen: list[Mutation] = []
    for folder in options.folders:
        available = mutations(ROOT, folder)[: SAMPLE[folder]]
        chosen += [mutation for mutation in available if mutation.name not in EQUIVALENT]
    if options.only:
        chosen = [m for m in chosen if options.only in m.name]
    results: list[tuple[Mutation, str]] = []
    with trees(options.workers) as copies, ThreadPoolExecutor(options.workers) as pool:

        def run_one(mutation: Mutation) -> tuple[Mutation, str]:
            tree = copies.pop()
            try:
                tests = coverage.of(mutation, options.seconds)
                return mutation, plant_and_test(tree, mutation, tests, 3 * options.seconds)
            finally:
                copies.append(tree)

        for mutation, result in pool.map(run_one, chosen):
            results.append((mutation, result))
            print(f"{result:<10} {mutation.name}  (line {mutation.line})", flush=True)
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
