"""Parse YAML text to data, and record the line of each key.

The values are those of `yaml.safe_load`, with one exception: `1e-2` is a number, as in YAML 1.2;
YAML 1.1 requires `1.0e-2`. In contrast to `safe_load`, the parser reports duplicate keys, keys
that are not text, and files that would exhaust memory or time ("billion laughs").
"""

from __future__ import annotations

import codecs
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from styled.config.problems import KeyPath, Problem, dotted
from styled.errors import ConfigError

MAX_FILE_BYTES = 1024 * 1024
MAX_NODES = 20_000  # values, lists and mappings, with all aliases expanded
MAX_DEPTH = 40

MERGE_TAG = "tag:yaml.org,2002:merge"
TEXT_TAG = "tag:yaml.org,2002:str"
FLOAT_TAG = "tag:yaml.org,2002:float"


@dataclass(frozen=True, slots=True)
class Source:
    """The data of a YAML text, the line of each key path, and the problems of its keys."""

    data: object
    lines: Mapping[KeyPath, int]
    problems: tuple[Problem, ...]

    def known_part(self, path: KeyPath) -> KeyPath:
        """Return the longest prefix of the path that exists in the text."""
        while path and path not in self.lines:
            path = path[:-1]
        return path


class SourceError(Exception):
    """The text is not valid YAML.

    Attributes:
        line: The line of the error, counted from 1, if known.
        message: A short reason.
    """

    def __init__(self, line: int | None, message: str) -> None:
        super().__init__(line, message)
        self.line = line
        self.message = message


def read_file(path: Path) -> str:
    """Return the text of a configuration file.

    Raises:
        ConfigError: The file is missing, unreadable, too large, not a regular file, or not text.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe could block for ever
            raise ConfigError(f"{path}: is not a file")
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: there is no such file",
            "`styled init DIR` makes a folder with a configuration to start from",
            "`-c FILE` names the configuration, if it is somewhere else",
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: is larger than 1 MiB, so it is hardly a configuration")
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text; save the file as UTF-8") from error


def parse(text: str) -> Source:
    """Return the data of a YAML text and the lines of its keys.

    Raises:
        SourceError: The text is not valid YAML, or it has too many values or levels once its
            aliases are expanded.
    """
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return Source(None, {}, ())
        problems = tuple(_check_keys(root, (), set()))
        data = loader.construct_document(root)
        # `construct_document` has merged the `<<` keys into their mappings, so that merged keys
        # have lines as well.
        return Source(data, dict(_key_lines(root, ())), problems)
    except yaml.MarkedYAMLError as error:
        raise _as_source_error(error) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SourceError(line, f"character {error.character:#x} is not allowed") from error
    # PyYAML lets some errors of Python through, for instance of characters that do not exist.
    except (ValueError, ArithmeticError, LookupError, RecursionError) as error:
        raise SourceError(None, f"not valid YAML: {str(error)[:200]}") from error


def _as_source_error(error: yaml.MarkedYAMLError) -> SourceError:
    """Convert PyYAML's error: its location and, if on another line, the start of its context."""
    mark, start = error.problem_mark, error.context_mark
    message = f"not valid YAML: {error.problem or error.context}"
    if mark and start and mark.line != start.line and error.context:
        message += f" ({error.context}, which begins on line {start.line + 1})"
    location = mark or start
    return SourceError(location.line + 1 if location else None, message)


class _Loader(yaml.SafeLoader):
    """A safe loader that limits the number of nodes and the depth, aliases included."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = 0
        self._depths = [0]  # depths of the nodes that are being composed, outermost first
        self._extents: dict[Node, tuple[int, int]] = {}  # finished node -> (nodes in it, depth)

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        """Compose a node and count the nodes in it; an alias counts as a copy of its anchor."""
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # stubs lack it
        if self.check_event(yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if node not in self._extents:
                raise SourceError(mark.line + 1, "an alias cannot stand inside what it refers to")
            nodes, depth = self._extents[node]
            self._nodes += nodes
        else:
            nodes_before = self._nodes
            self._nodes += 1
            self._depths.append(0)
            self._check_extent(0, mark)
            node = super().compose_node(parent, index)
            depth = self._depths.pop() + 1
            if node is not None:
                self._extents[node] = (self._nodes - nodes_before, depth)
        self._depths[-1] = max(self._depths[-1], depth)
        self._check_extent(depth, mark)
        return node

    def _check_extent(self, depth: int, mark: yaml.Mark) -> None:
        if self._nodes > MAX_NODES:
            raise SourceError(mark.line + 1, f"holds more than {MAX_NODES} values")
        if len(self._depths) + depth > MAX_DEPTH:
            raise SourceError(mark.line + 1, "is nested too deeply")

    def construct_object(self, node: Node, deep: bool = False) -> object:
        """Construct a value; an invalid number or date raises a `SourceError` with its line."""
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
            # PyYAML's pattern matches 2024-13-45 as a date, and `datetime` then raises ValueError.
            kind = node.tag.rpartition(":")[2]
            message = f"cannot be read as {kind}: put it in quotes if it is text"
            raise SourceError(node.start_mark.line + 1, message) from error


_Loader.add_implicit_resolver(
    FLOAT_TAG, re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _check_keys(node: Node, path: KeyPath, seen: set[Node]) -> Iterator[Problem]:
    """Yield problems for duplicate keys and for keys that are not text; remove the latter."""
    if node in seen:  # reached through another alias
        return
    seen.add(node)
    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            yield from _check_keys(item, (*path, index), seen)
    if not isinstance(node, MappingNode):
        return
    first_lines: dict[str, int] = {}
    text_pairs: list[tuple[Node, Node]] = []
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, ScalarNode) or key.tag not in (TEXT_TAG, MERGE_TAG):
            yield Problem(path, f"{_describe_key(key)} is not text; put it in quotes", line)
            continue
        text_pairs.append((key, value))
        if key.value in first_lines:
            first = first_lines[key.value]
            message = f"given twice, on line {first} and on line {line}"
            yield Problem((*path, key.value), message, line)
        first_lines.setdefault(key.value, line)
        yield from _check_keys(value, (*path, key.value), seen)
    node.value = text_pairs


def _describe_key(key: Node) -> str:
    return f"the key {dotted((key.value,))}" if isinstance(key, ScalarNode) else "a key"


def _key_lines(node: Node, path: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    """Yield each key path below a node, with the line of its key or list item."""
    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            yield (*path, index), item.start_mark.line + 1
            yield from _key_lines(item, (*path, index))
    elif isinstance(node, MappingNode):
        for key, value in node.value:
            yield (*path, key.value), key.start_mark.line + 1
            yield from _key_lines(value, (*path, key.value))
