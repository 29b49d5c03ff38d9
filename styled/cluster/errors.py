"""Turns Ray's exceptions into those of styled: who died, a process or a whole machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.exceptions import (
    ActorUnschedulableError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    TaskUnschedulableError,
)

from styled.cluster.connection import accepts_connections, is_reachable, node_records
from styled.errors import EngineDied, MemoryShortage, NodeLost, StyledError, UnexpectedError

DETECTION_SECONDS = 8.0
"""Maximum time that Ray is given to find out whether a machine died along with a process."""

POLL_SECONDS = 0.25

_UNKNOWN_OBJECT, _UNKNOWN_ACTOR = "owner is unknown", "Can't find actor"
"""Texts of the builtin exceptions that Ray raises for what belongs to a session that is over."""


@contextmanager
def styled_errors(node_id: str, node: str) -> Iterator[None]:
    """Raise a StyledError for what Ray raises in the context; arguments of `as_styled_error`."""
    try:
        yield
    except RayError as error:
        raise as_styled_error(error, node_id, node) from error
    except (Exception, SystemExit) as error:
        if not is_lost(error):
            raise
        if _UNKNOWN_OBJECT in str(error):
            raise NodeLost(
                "what the cluster had of this photo is gone", "the photo is prepared again"
            ) from error
        raise _node_lost(node) from error


def is_lost(error: BaseException) -> bool:
    """Return whether Ray has raised this because the cluster, or what it had, is gone.

    In a thread that waits for it, Ray raises SystemExit when its process on this machine dies.
    """
    if isinstance(error, RayError | SystemExit):
        return True
    if not ray.is_initialized():
        # Closing the connection makes a call that is running fail in one way or another, for
        # example with an AttributeError.
        return not isinstance(error, StyledError)
    return _UNKNOWN_OBJECT in str(error) or _UNKNOWN_ACTOR in str(error)


def as_styled_error(error: RayError, node_id: str, node: str) -> StyledError:
    """Return what a failed call means: the StyledError that it has raised, or what has died.

    May wait a few seconds to learn whether the node is dead.

    Args:
        error: What Ray has raised.
        node_id: Where the call ran.
        node: The name of that machine, for the message.
    """
    cause = error.cause if isinstance(error, RayTaskError) else None
    if isinstance(cause, StyledError):
        return cause
    if isinstance(cause, RayError):
        error = cause  # of an argument that could not be fetched
    if isinstance(error, OutOfMemoryError):
        return MemoryShortage(
            f"Ray has killed a process on {node}, whose memory is nearly full",
            "give that machine fewer engines, or more memory",
        )
    if isinstance(error, RayTaskError):
        return UnexpectedError.of(error)
    certain = (NodeDiedError, ObjectLostError, ActorUnschedulableError, TaskUnschedulableError)
    if isinstance(error, certain) or not _survives(node_id):
        return _node_lost(node)
    return EngineDied(f"a process on {node} died: {_first_line(error)}")


def _node_lost(node: str) -> NodeLost:
    return NodeLost(
        f"the machine {node} is gone, or can't be reached any more",
        "the job resumes elsewhere; if it happens again, look at that machine and its network",
    )


def _survives(node_id: str) -> bool:
    """Return whether a node still lives; Ray learns of a death only after some seconds.

    A process that was killed alone leaves its node alive at once and afterwards, so this waits
    only as long as Ray has not noticed that the connection to the node is broken.
    """
    deadline = time.monotonic() + DETECTION_SECONDS
    while is_reachable():
        record = next((one for one in node_records() if one["NodeID"] == node_id), None)
        if record is None or not record["Alive"]:
            return False
        address, port = record["NodeManagerAddress"], record["NodeManagerPort"]
        if accepts_connections(address, port):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return False


def _first_line(error: RayError) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
