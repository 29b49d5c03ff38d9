"""Recipe settings from the command line: `--set size=256 --set steps=20`."""

from __future__ import annotations

from collections.abc import Sequence

from styled.config.merging import apply_overrides
from styled.config.overrides import RecipeOverrides
from styled.config.problems import Problem, dotted, validate
from styled.config.source import SourceError, parse
from styled.errors import ConfigError
from styled.recipes import Recipe


def apply_set_options(settings: Sequence[str], recipe: Recipe) -> Recipe:
    """Return the recipe with settings of the form `key=value` applied to it.

    Keys are dotted, values are YAML: `size.exact=[300, 450]`, `scales=null`. If a key is given
    twice, the last value is used.

    Raises:
        ConfigError: A setting is not valid. The message has one line per problem:
            `--set steps: expected a whole number from 1 to 100000, got "many"`.
    """
    tree: dict[str, object] = {}
    problems: list[Problem] = []
    for setting in settings:
        key, equals, text = setting.partition("=")
        keys = tuple(key.strip().split("."))
        if not equals or not text.strip() or not all(keys):
            problems.append(Problem((setting,), "expected the form key=value"))
            continue
        try:
            value = parse(text)
        except SourceError as error:
            problems.append(Problem(keys, error.message))
            continue
        problems += [Problem((*keys, *problem.path), problem.message) for problem in value.problems]
        if not _insert(tree, keys, value.data):
            problems.append(Problem(keys, "is set both as a whole and in part"))
    overrides, validation_problems = validate(RecipeOverrides, tree)
    problems += validation_problems
    if overrides is None or problems:
        raise ConfigError("\n".join(f"--set {dotted(p.path)}: {p.message}" for p in problems))
    return apply_overrides(recipe, overrides)


def _insert(tree: dict[str, object], keys: tuple[str, ...], value: object) -> bool:
    """Set `tree[keys[0]][keys[1]]...` to `value`, creating mappings as needed.

    Returns False if a key is set both to a value and to a mapping.
    """
    *parents, last = keys
    branch = tree
    for key in parents:
        child = branch.setdefault(key, {})
        if not isinstance(child, dict):
            return False
        branch = child
    if isinstance(branch.get(last), dict) != isinstance(value, dict) and last in branch:
        return False
    branch[last] = value
    return True
