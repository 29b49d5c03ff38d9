"""The exceptions of styled.

Each message says what happened, where, and what to do about it. Only the command line turns these
into exit codes.
"""

from __future__ import annotations

import traceback


class StyledError(Exception):
    """Base class of all errors that styled raises deliberately.

    Attributes:
        message: What happened and where, in one sentence for the user.
        remedies: What to do about it; each entry is one suggestion.
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


class NoNetworkAccess(WeightsError):
    """The weights are missing, and without internet access a restart does not help."""


class DeviceError(StyledError):
    """The configured device is missing or does not work."""


class DeviceLost(DeviceError):
    """The device has failed during use; only a new process can use it again."""


class InputRejected(StyledError):
    """This input can't be processed. It is moved to `rejected` with the message."""


class TooManyPixels(InputRejected):
    """This input has more pixels than the limit."""


class InputIncomplete(StyledError):
    """This input ends too early: its upload may be incomplete."""


class ResourceUnavailable(StyledError):
    """A folder, a disk, a permission or another resource is missing; no input is the cause."""


class NotMounted(ResourceUnavailable):
    """The disk that a folder was on before is not mounted now."""


class InboxUnavailable(ResourceUnavailable):
    """The whole inbox is gone or can't be read; single photos in it are not the cause."""


class Forbidden(ResourceUnavailable):
    """A folder is not writable: permissions, an immutable flag, or a read-only mount."""


class FolderNotWritable(Forbidden):
    """One folder below the outbox, `rejected` or the archive is not writable; others may be."""


class NameTaken(ResourceUnavailable):
    """Another program has made a file of this name since it was chosen."""


class InputStuck(Forbidden):
    """There is no permission to move one input out of the inbox; others may be movable."""


class StyleUnavailable(ResourceUnavailable):
    """A style's picture is missing or can't be used; other styles are not affected."""


class DiskFailure(ResourceUnavailable):
    """A disk is full or failing; it may recover."""


class DiskNearlyFull(ResourceUnavailable):
    """A disk has less free space than is to remain; any job would take more of it."""


class DiskReadOnly(ResourceUnavailable):
    """A file system that any job writes to is mounted read-only."""


class NameNotSupported(ResourceUnavailable):
    """The file system does not support this file name."""


class MemoryShortage(ResourceUnavailable):
    """There is not enough memory now to read or write this picture."""


class JournalDamaged(StyledError):
    """The journal's file is damaged; the next start rebuilds it from the existing files."""


class NoJournal(ResourceUnavailable):
    """There is no journal: styled has never run on these folders."""


class InUse(ResourceUnavailable):
    """Another instance already works on these folders."""


class EngineFailure(StyledError):
    """The optimisation failed: not-a-number, divergence or lack of memory."""


class UnexpectedError(StyledError):
    """A bug in this program that occurred while it processed a job.

    Attributes:
        traceback: The formatted traceback, for the log.
    """

    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException) -> UnexpectedError:
        """Describe an exception without a reference to it: its frames keep images alive."""
        described = cls(
            f"an unexpected error: {type(error).__name__}: {error}",
            "report it, with the traceback that the log has",
        )
        described.traceback = "".join(traceback.format_exception(error))
        return described


class EngineDied(StyledError):
    """An engine has died during a job; another engine may resume the job."""


class NodeLost(StyledError):
    """A machine of the cluster is gone or can't be reached, and with it a job's images or engine.

    The job is probably not the cause: another machine resumes it.
    """


class ClusterUnavailable(StyledError):
    """Ray is not installed, or the cluster can't be reached."""


class ServiceUnhealthy(StyledError):
    """The daemon does not run, or makes no progress."""


class StopTimeout(Exception):
    """A stop has abandoned a step that would have taken too long. This is not a failure."""
