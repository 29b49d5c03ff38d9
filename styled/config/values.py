"""Types of configuration values, with validators that say what they expect.

They are used inside `Annotated`: `Annotated[int, Number(ge=1)]` is a whole number from 1 up, and
other values are rejected with "expected a whole number >= 1". Numbers are validated strictly,
because YAML has its own types: `"5"` in quotes is text, and `true` is not 1.
"""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PlainValidator,
    ValidationError,
    ValidatorFunctionWrapHandler,
)
from pydantic_core import CoreSchema, core_schema

from styled.config.messages import expected, quoted, refused

GALLERY_NAMES = ("gallery.html", "gallery_files")
MAX_NAME_BYTES = 100  # file systems allow 255; the remainder is for suffixes
MIN_MEMORY_BYTES = 100_000_000  # the network takes most of this
MAX_THREADS = 1024
MAX_ENGINES = 1024
MAX_GPUS = 16
UNIT_BYTES = {
    "B": 1,
    **{f"{letter}B": 1000**n for n, letter in enumerate("KMGT", start=1)},
    **{f"{letter}IB": 1024**n for n, letter in enumerate("KMGT", start=1)},
}
FORBIDDEN_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")  # control, lone surrogates, line separators
WEIGHTS_SUFFIXES = (".pth", ".safetensors")

BuiltInWeights = Literal["imagenet", "untrained"]


class Section(BaseModel):
    """Base class of models: immutable, and unknown keys are errors.

    `defer_build`: the validators of a model and its fields are built together at the first use.
    Building them one by one at import would take most of the run time of a short command.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


@dataclass(frozen=True, slots=True)
class Expected:
    """Metadata that replaces the messages of the type's own validators by one sentence."""

    what: str

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Wrap the schema of the annotated type."""
        return _with_message(handler(source), self.what)


@dataclass(frozen=True, slots=True)
class EmptyAsDefault:
    """Metadata that treats a key without a value as an empty mapping.

    A section whose lines are all commented out has no value.
    """

    def __get_pydantic_core_schema__(
        self, source: type[object], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Convert None to `{}` before the schema of the annotated type."""
        empty = BeforeValidator(
            lambda value: {} if value is None else value, json_schema_input_type=source | None
        )
        return empty.__get_pydantic_core_schema__(source, handler)


@dataclass(frozen=True, slots=True)
class Number:
    """Metadata for `int` and `float`: only finite numbers within bounds are valid."""

    ge: int | None = None
    gt: int | None = None
    le: int | None = None
    lt: int | None = None

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Build the schema: a whole number for `int`, a finite number for `float`."""
        if source is int:
            int_schema = core_schema.int_schema(
                strict=True, ge=self.ge, gt=self.gt, le=self.le, lt=self.lt
            )
            return _with_message(int_schema, f"a whole number {self._bounds()}")
        float_schema = core_schema.float_schema(
            strict=True, allow_inf_nan=False, ge=self.ge, gt=self.gt, le=self.le, lt=self.lt
        )
        return _with_message(float_schema, f"a number {self._bounds()}")

    def _bounds(self) -> str:
        if self.ge is not None and self.le is not None:
            return f"from {self.ge} to {self.le}"
        bounds = {">=": self.ge, ">": self.gt, "<=": self.le, "<": self.lt}
        return " and ".join(
            f"{sign} {bound}" for sign, bound in bounds.items() if bound is not None
        )


def _with_message(schema: CoreSchema, what: str) -> CoreSchema:
    def check(value: object, handler: ValidatorFunctionWrapHandler) -> object:
        try:
            return handler(value)
        except ValidationError:
            raise expected(what) from None

    return core_schema.no_info_wrap_validator_function(check, schema)


def _parse_path(value: object) -> Path:
    """Return the path with `~` expanded; it may still be relative."""
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str) or not value:
        raise expected("a path")
    try:
        if b"\0" in os.fsencode(value):
            raise refused("a path cannot hold a NUL character")
        return Path(value).expanduser()
    except UnicodeEncodeError:
        raise refused("holds a character that no file name can have") from None
    except RuntimeError:
        raise refused(f"there is no home folder for {quoted(value.split('/')[0])}") from None


def _parse_weights(value: object) -> BuiltInWeights | Path:
    if value == "imagenet":
        return "imagenet"
    if value == "untrained":
        return "untrained"
    if isinstance(value, str | Path) and str(value).lower().endswith(WEIGHTS_SUFFIXES):
        return _parse_path(value)
    raise expected("imagenet, untrained, or a .pth or .safetensors file")


def _parse_memory(value: object) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    size = _bytes_of(value)
    if size is None or not MIN_MEMORY_BYTES <= size < 2**63:
        raise expected("auto, or a size from 100MB up such as 4GB or 6GiB")
    return size


def _parse_disk_space(value: object) -> int:
    size = _bytes_of(value)
    if size is None or not 0 <= size < 2**63:
        raise expected("0, or a size such as 500MB or 2GiB")
    return size


def _bytes_of(value: object) -> int | None:
    """Return a size in bytes, None if it is none; 1 GB is 1000**3 and 1 GiB is 1024**3 bytes."""
    if isinstance(value, str) and (
        match := re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?) ?([KMGT]?I?B)", value.upper(), re.ASCII)
    ):
        unit = UNIT_BYTES.get(match[2])
        return None if unit is None else int(float(match[1]) * unit)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _parse_threads(value: object) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_THREADS:
        return value
    raise expected(f"auto, or a whole number from 1 to {MAX_THREADS}")


def _parse_engines(value: object) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_ENGINES:
        return value
    raise expected(f"auto, or a whole number from 1 to {MAX_ENGINES}")


def _check_cluster_address(value: object) -> str | None:
    if value is None or value in ("local", "auto"):
        return value
    match = re.fullmatch(r"(?:\[[0-9a-fA-F:.]+\]|[\w.-]+):(\d{1,5})", str(value), re.ASCII)
    if isinstance(value, str) and match and 0 < int(match[1]) < 65536:
        return value
    raise expected("null, local, auto, or HOST:PORT of a Ray cluster")


def _check_gpu_share(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value >= 1 and value == int(value) and value <= MAX_GPUS:
            return float(value)
        if 0 < value < 1:
            return float(value)
    raise expected("a number between 0 and 1, or a whole number from 1 up")


def _check_device(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", value, re.ASCII):
        return value
    raise expected("auto, cpu, cuda, cuda:N (N counts from 0) or mps")


def folder_name_problem(name: str) -> str | None:
    """Return why a name is not valid for a folder on all common file systems, or None."""
    if not name:
        return "the name is empty, but a folder takes this name"
    if "/" in name or any(unicodedata.category(letter) in FORBIDDEN_CATEGORIES for letter in name):
        return "a folder takes this name: it cannot hold a slash or a control character"
    if name.startswith("."):
        return "a folder takes this name: it cannot begin with a dot"
    if name in GALLERY_NAMES:
        return "this name is the gallery's, in the outbox: choose another"
    if len(name.encode(errors="surrogateescape")) > MAX_NAME_BYTES:
        return f"the name is longer than {MAX_NAME_BYTES} bytes"
    return None


def _check_folder_name(name: str) -> str:
    problem = folder_name_problem(name)
    if problem is not None:
        raise refused(problem)
    return name


def _check_pattern(pattern: str) -> str:
    if not pattern:
        raise refused("an empty pattern matches nothing")
    if "/" in pattern:
        raise refused("patterns match single names of files and folders, so / never matches")
    return pattern


def _check_not_empty(value: object) -> object:
    # `min_length` does not work here: pydantic counts only valid items, so that a list with a
    # single invalid item would be reported as too short.
    if value in ([], ()):
        raise refused("the list is empty; it needs at least one entry")
    return value


T = TypeVar("T")
OrEmpty = Annotated[T, EmptyAsDefault()]
NotEmpty = Annotated[T, BeforeValidator(_check_not_empty), Field(json_schema_extra={"minItems": 1})]

HOOK_PLACEHOLDERS = ("result", "sidecar", "input", "style", "job", "reason")


def _check_hook(words: tuple[str, ...]) -> tuple[str, ...]:
    """Check a hook's command: a program, arguments, and known placeholders in them."""
    if words and not words[0]:
        raise refused("the first word is the program; it must not be empty")
    for word in words:
        if "\0" in word:
            raise refused("a word must not contain a zero byte")
        for name in re.findall(r"\{(\w+)\}", word):
            if name not in HOOK_PLACEHOLDERS:
                known = ", ".join(f"{{{name}}}" for name in HOOK_PLACEHOLDERS)
                raise refused(f"unknown placeholder {{{name}}}: there are {known}")
    return words


HookCommand = Annotated[tuple[str, ...], AfterValidator(_check_hook)]
FilePath = Annotated[Path, PlainValidator(_parse_path, json_schema_input_type=str)]
FolderName = Annotated[str, AfterValidator(_check_folder_name)]
NamePattern = Annotated[str, AfterValidator(_check_pattern)]
DeviceSetting = Annotated[str, BeforeValidator(_check_device)]
WeightsSetting = Annotated[
    BuiltInWeights | Path, PlainValidator(_parse_weights, json_schema_input_type=str)
]
MemoryLimit = Annotated[
    Literal["auto"] | int, PlainValidator(_parse_memory, json_schema_input_type=str | int)
]
DiskSpaceSetting = Annotated[
    int, PlainValidator(_parse_disk_space, json_schema_input_type=Annotated[int, Field(ge=0)] | str)
]
Threads = Annotated[
    Literal["auto"] | int,
    PlainValidator(
        _parse_threads,
        json_schema_input_type=Literal["auto"] | Annotated[int, Field(ge=1, le=MAX_THREADS)],
    ),
]
EngineCount = Annotated[
    Literal["auto"] | int,
    PlainValidator(
        _parse_engines,
        json_schema_input_type=Literal["auto"] | Annotated[int, Field(ge=1, le=MAX_ENGINES)],
    ),
]
ClusterAddress = Annotated[
    str | None, PlainValidator(_check_cluster_address, json_schema_input_type=str | None)
]
GpuShare = Annotated[
    float,
    PlainValidator(
        _check_gpu_share, json_schema_input_type=Annotated[float, Field(gt=0, le=MAX_GPUS)]
    ),
]
Flag = Annotated[bool, Field(strict=True)]

NonNegative = Annotated[float, Number(ge=0)]
Positive = Annotated[float, Number(gt=0)]
Count = Annotated[int, Number(ge=1)]
Steps = Annotated[int, Number(ge=1, le=100_000)]
EdgePx = Annotated[int, Number(ge=32, le=30_000)]
