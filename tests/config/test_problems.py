"""Tests of problems: all are reported at once, each with line, key path and a clear message."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from styled.config import Config
from styled.config.problems import dotted

Load = Callable[[str], Config]
Problems = Callable[[str], list[str]]


def test_all_problems_appear_at_once_in_the_order_of_the_file(problems: Problems) -> None:
    """Errors in keys, values, names and folders are reported together, sorted by line."""
    assert problems(
        """
        inbox: photos
        engin: {}
        default_style: stary-night
        styles:
          starry-night:
            image: styles/starry-night.jpg
            recipe:
              content_weight: high
              stepz: 4
          two-masters:
            images: [{path: a.jpg, weight: 0}, {weight: 1}]
            recipe: pyramyd
          bare: {}
        folders:
          all: [starry-night, two-master]
        outbox: photos/out
        output: {format: jpg}
        output: {quality: 101}
        """
    ) == [
        'config.yaml:2: engin: unknown key; did you mean "engine"?',
        'config.yaml:3: default_style: "stary-night" is not a style; did you mean "starry-night"?',
        "config.yaml:8: styles.starry-night.recipe.content_weight: "
        'expected a number >= 0, got "high"',
        'config.yaml:9: styles.starry-night.recipe.stepz: unknown key; did you mean "steps"?',
        "config.yaml:11: styles.two-masters.images.0.weight: expected a number > 0, got 0",
        'config.yaml:11: styles.two-masters.images.1: needs the key "path"',
        'config.yaml:12: styles.two-masters.recipe: unknown recipe "pyramyd"; '
        'did you mean "pyramid"?',
        'config.yaml:13: styles.bare: needs "image" (one file) or "images" (a list)',
        'config.yaml:15: folders.all.1: "two-master" is not a style; did you mean "two-masters"?',
        "config.yaml:16: outbox: outbox cannot lie inside inbox: "
        "what is in it would be taken as new inputs",
        "config.yaml:18: output.quality: expected a whole number from 1 to 100, got 101",
        "config.yaml:18: output: given twice, on line 17 and on line 18",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("intake: {zzz: 1}", "intake.zzz: unknown key; valid keys: mode, settle_seconds"),
        ("queue: {max_attempts: 2.5}", "expected a whole number from 1 to 100, got 2.5"),
        ("queue: {max_attempts: true}", "expected a whole number from 1 to 100, got true"),
        ('queue: {max_attempts: "3"}', 'expected a whole number from 1 to 100, got "3"'),
        ("intake: {rescan_seconds: .inf}", "expected a number > 0, got inf"),
        ("intake: {rescan_seconds: .nan}", "expected a number > 0, got nan"),
        ("intake: {ignore: '*.tmp'}", 'intake.ignore: expected a list, got "*.tmp"'),
        ("intake: {ignore: [a/b]}", "intake.ignore.0: patterns match single names"),
        ("default_style: yes", "default_style: expected text, got true; put it in quotes"),
        ("default_style: sea", 'default_style: "sea" is not a style; there are no styles'),
        ("inbox:", "inbox: expected a path, got nothing"),
        ('inbox: "a\\0b"', "inbox: a path cannot hold a NUL character"),
        ("inbox: ~no-such-user-here/in", 'there is no home folder for "~no-such-user-here"'),
        ("engine: {device: gpu}", "engine.device: expected auto, cpu, cuda, cuda:N"),
        ("engine: {weights: imagnet}", "engine.weights: expected imagenet, untrained, or a .pth"),
        ("engine: {memory_limit: 4}", "expected auto, or a size from 100MB up"),
        ("engine: {threads: 0}", "expected auto, or a whole number from 1 to 1024, got 0"),
        ("engine: {threads: true}", "expected auto, or a whole number from 1 to 1024, got true"),
        ("engine: {threads: 2.0}", "expected auto, or a whole number from 1 to 1024, got 2.0"),
        ("engine: {deterministic: 1}", "expected"),
        ("cluster: {engines: 0}", "cluster.engines: expected auto, or a whole number from 1 to"),
        ("cluster: {engines: true}", "expected auto, or a whole number from 1 to"),
        ("cluster: {address: head}", "cluster.address: expected null, local, auto, or HOST:PORT"),
        ("cluster: {address: 'head:70000'}", "expected null, local, auto, or HOST:PORT"),
        ("cluster: {address: 6379}", "expected null, local, auto, or HOST:PORT"),
        ("cluster: {gpus_per_engine: 1.5}", "expected a number between 0 and 1, or a whole number"),
        ("cluster: {gpus_per_engine: 0}", "expected a number between 0 and 1, or a whole number"),
        ("cluster: {gpus_per_engine: true}", "expected a number between 0 and 1, or a whole"),
        ("intake: {ignore: ['']}", "intake.ignore.0: an empty pattern matches nothing"),
        ("styles: {a: {images: [3]}}", "styles.a.images.0: expected a path, or a mapping of path"),
        (
            "output: {format: jpg}",
            'expected same, jpeg, png, tiff or webp, got "jpg"; did you mean',
        ),
        (
            "styles: {a: {image: a.jpg, overrides: {size: large}}}",
            "styles.a.overrides.size: expected the long edge in pixels, or a mapping such as "
            "{megapixels: 2}",
        ),
        (
            "styles: {a: {image: a.jpg, overrides: {size: 8}}}",
            "styles.a.overrides.size: expected a whole number from 32 to 30000, got 8",
        ),
        ("output: {size: large}", 'output.size: expected painted or input, got "large"'),
        ("output: {metadata: no}", "output.metadata: expected keep or strip, got false"),
        ("output: {bits: 12}", "output.bits: expected same, 8 or 16, got 12"),
        ("output: {bits: '8'}", 'output.bits: expected same, 8 or 16, got "8"'),
        ("output: {keep_frames: 0}", "output.keep_frames: expected a whole number >= 1"),
        ("output: {keep_frames: true}", "output.keep_frames: expected a whole number >= 1"),
        ("output: {gallery: no gallery}", "output.gallery: expected true or false"),
        (
            "styles: {gallery_files: {image: x}}",
            "this name is the gallery's, in the outbox: choose another",
        ),
        ("engine: fast", 'engine: expected a mapping of keys to values, got "fast"'),
        ("inbox: [[a], b]", "inbox: expected a path, got a list"),
        ("inbox: [1, 2, 3, 4, 5]", "inbox: expected a path, got a list"),
        ("inbox: {a: b}", "inbox: expected a path, got a mapping"),
        ("inbox: !!binary YQ==", "inbox: expected a path, got bytes"),
        ("queue: {max_attempts: 0x" + "f" * 9000 + "}", "got a huge number"),
        ("output: {format: " + "x" * 9000 + "}", "x..."),
        ("- inbox", 'expected a mapping of keys to values, got ["inbox"]'),
        ("2024: x", "config.yaml:1: the key 2024 is not text; put it in quotes"),
        ("output: {quality: 2024-13-45}", "config.yaml:1: cannot be read as timestamp"),
        ("styles: {a: }", "styles.a: expected a mapping of keys to values, got nothing"),
        ("styles: {a: {image: x, images: [y]}}", 'give "image" or "images", not both'),
        ("styles: {a: {images: []}}", "the list is empty; it needs at least one entry"),
        ("styles: {a: {image: x, recipe: 5}}", "styles.a.recipe: expected the name of a recipe"),
        ("styles: {a: {image: inbox/x.jpg}}", "styles.a.image: lies inside inbox"),
        ("styles: {a: {images: [inbox/x.jpg]}}", "styles.a.images.0: lies inside inbox"),
        ("styles: {a: {image: x}}\nfolders: {a: [a]}", "folders.a: is the name of a style"),
        ("styles: {a: {image: x}}\nfolders: {b: [a, a]}", 'folders.b.1: "a" is listed twice'),
        ("styles: {a: {image: x}}\nfolders: {b: []}", "folders.b: the list is empty"),
    ],
)
def test_each_problem_has_its_sentence(problems: Problems, text: str, problem: str) -> None:
    """A single error gives a single line with the expected and the actual value."""
    lines = problems(text)
    assert len(lines) == 1
    assert problem in lines[0]


@pytest.mark.parametrize(
    "name",
    [
        '""',
        "a/b",
        ".hidden",
        "..",
        '"a\\0"',
        '"a\\nb"',
        '"\\u2028"',
        "ä" * 51,
        "gallery.html",
        "gallery_files",
    ],
)
@pytest.mark.parametrize("section", ["styles: {NAME: {image: a}}", "folders: {NAME: [s]}"])
def test_names_that_cannot_be_folders_are_refused(
    problems: Problems, section: str, name: str
) -> None:
    """Names of styles and folders must be valid folder names; each error is a single line."""
    lines = problems(section.replace("NAME", name))
    assert "name" in lines[0]
    assert all(line.startswith("config.yaml:1: ") for line in lines)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("outbox: inbox", "outbox: inbox and outbox cannot be the same folder"),
        ("inbox: ./outbox/../outbox", "inbox and outbox cannot be the same folder"),
        ("archive: outbox", "archive: outbox and archive cannot be the same folder: their files"),
        ("state: inbox/.state", "state: state cannot lie inside inbox"),
        ("outbox: out\ninbox: out/in", "outbox: inbox cannot lie inside outbox"),
        ("inbox: link", "inbox: inbox and outbox cannot be the same folder"),
    ],
)
def test_folders_that_feed_one_another_are_refused(
    load: Load, problems: Problems, text: str, problem: str
) -> None:
    """Folders are compared with symlinks resolved, so that a link cannot hide a loop."""
    base = load("").base
    (base / "outbox").mkdir()
    (base / "link").symlink_to("outbox")
    assert [line for line in problems(text) if problem in line]


def test_folders_beside_one_another_are_fine(load: Load) -> None:
    """`inbox-done` is not inside `inbox`; the state folder may be inside the outbox."""
    config = load("outbox: inbox-done\nstate: inbox-done/.state\n")
    assert config.state.name == ".state"


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 * 10**9), ("6 GiB", 6 * 2**30), ("1.5gb", 1_500_000_000), ("200000000", 2 * 10**8)],
)
def test_memory_limits_are_sizes(load: Load, text: str, size: int) -> None:
    """1 GB is 1000**3 bytes, 1 GiB is 1024**3 bytes, and a bare number is in bytes."""
    assert load(f"engine: {{memory_limit: {text}}}").engine.memory_limit == size


def test_odd_keys_are_quoted_in_key_paths() -> None:
    """Keys with dots or line breaks are quoted in key paths."""
    assert dotted(("styles", "a.b", 0, "x\ny", "starry-night")) == (
        'styles."a.b".0."x\\ny".starry-night'
    )


def test_a_style_whose_folder_would_be_left_alone_is_a_problem(problems: Problems) -> None:
    """Names of styles and folders must not match an ignore pattern, in upper or lower case.

    The patterns are the default ones, or those of the file.
    """
    assert problems(
        """
        styles:
          sketch.TMP: {image: a.jpg}
          oil: {image: a.jpg}
        folders:
          all~: [oil]
        """
    ) == [
        'config.yaml:2: styles."sketch.TMP": its folder would be left alone: the name matches '
        '"*.tmp" in intake.ignore; choose another name, or take out that pattern',
        'config.yaml:5: folders.all~: its folder would be left alone: the name matches "*~" in '
        "intake.ignore; choose another name, or take out that pattern",
    ]
    assert problems(
        """
        styles:
          sketch.tmp: {image: a.jpg}
          oil: {image: a.jpg}
        intake: {ignore: ["o?l"]}
        """
    ) == [
        'config.yaml:3: styles.oil: its folder would be left alone: the name matches "o?l" in '
        "intake.ignore; choose another name, or take out that pattern",
    ]
