"""What can go wrong, as a small family of exceptions.

Each message says what happened, where, and what to do about it. The command line is
the only place that turns these into exit codes.
"""

from __future__ import annotations

import traceback


class StyledError(Exception):
    """Base of every error that styled raises on purpose.

    Attributes:
        message: What happened and where, in one sentence for a person.
        remedies: What to do about it, one suggestion for each entry.
    """

    def __init__(self, message: str, *remedies: str) -> None:
        super().__init__(message, *remedies)
        self.message = message
        self.remedies = remedies

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  - {remedy}" for remedy in self.remedies)])


class ConfigError(StyledError):
    """The configuration, or a value given on the command line, is wrong."""


class WeightsError(StyledError):
    """The network's weights are missing, damaged or not those of a VGG-19."""


class DeviceError(StyledError):
    """The configured device is missing or does not work."""


class DeviceLost(DeviceError):
    """The device broke while in use; only a new process can use it again."""


class InputRejected(StyledError):
    """This input can never be done. It is moved to `rejected` with the message."""


class TooManyPixels(InputRejected):
    """This input has more pixels than were to be read."""


class InputIncomplete(StyledError):
    """This input ends too early: it may still be on its way."""


class ResourceUnavailable(StyledError):
    """A folder, a disk or a permission is missing. It is nobody's input's fault."""


class NotMounted(ResourceUnavailable):
    """The disk that a folder was on before is not mounted now."""


class InboxUnavailable(ResourceUnavailable):
    """The whole inbox is gone or can't be read, which says nothing about any photo in it."""


class Forbidden(ResourceUnavailable):
    """A folder may not be written: permissions, an immutable flag, or a read-only mount."""


class FolderNotWritable(Forbidden):
    """One folder below the outbox, `rejected` or the archive may not be written; others may."""


class InputStuck(Forbidden):
    """An input may not be moved out of the inbox; others may."""


class StyleUnavailable(ResourceUnavailable):
    """A style's picture is missing or can't be used; other styles can."""


class DiskTrouble(ResourceUnavailable):
    """A disk is full or failing: it may be better in a while."""


class PlaceRefused(ResourceUnavailable):
    """A file system does not take this one name; others it would take."""


class MemoryShortage(ResourceUnavailable):
    """There is not enough memory to read or to write this picture: later there may be."""


class JournalDamaged(StyledError):
    """The journal's file is damaged; the next start makes a new one of what there is."""


class NoJournal(ResourceUnavailable):
    """There is no journal: styled has never run on these folders."""


class InUse(ResourceUnavailable):
    """Another instance already works on these folders."""


class EngineFailure(StyledError):
    """The optimisation failed: not-a-number, divergence or lack of memory."""


class UnexpectedError(StyledError):
    """A fault of this program, met while it worked on one job.

    Attributes:
        traceback: For the log.
    """

    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException) -> UnexpectedError:
        """Describe any other exception, without keeping it: its frames hold images."""
        described = cls(
            f"an unexpected error: {type(error).__name__}: {error}",
            "report it, with the traceback that the log has",
        )
        described.traceback = "".join(traceback.format_exception(error))
        return described


class EngineDied(StyledError):
    """An engine has ended amid its work; another one may go on with it."""


class StoppedAmidStep(Exception):
    """Told to stop, amid a step that would have taken too long to wait for. No failure."""
