"""The errors a user sees. Each says what was expected, what was found, what was done, and what to do next.

Every error that the project raises on purpose is a `PipelineError`. The command line prints it as one line and exits
with its `status`. Any other uncaught exception is a bug in this program.
"""

from __future__ import annotations


class PipelineError(Exception):
    """A failure, with its exit status and the four parts of its message.

    Args:
        expected: what the program needed.
        found: what it found instead.
        done: what it did about it; by default, nothing was written.
        next_step: the command to run, or the change to make.
    """

    status = 1

    def __init__(self, *, expected: str, found: str, next_step: str, done: str = "nothing was written") -> None:
        self.expected = expected
        self.found = found
        self.done = done
        self.next_step = next_step
        super().__init__(self._one_line())

    def _one_line(self) -> str:
        text = f"expected {self.expected}; found {self.found}; done: {self.done}; next: {self.next_step}"
        return " ".join(text.split())

    def document(self) -> dict[str, str | int]:
        """The same as plain JSON."""
        parts = {"expected": self.expected, "found": self.found, "done": self.done, "next": self.next_step}
        return {"status": self.status, **{name: " ".join(text.split()) for name, text in parts.items()}}

    def __reduce__(self) -> tuple[object, ...]:
        # Worker processes raise these errors, and the default pickling loses keyword-only arguments.
        return _rebuild, (type(self), self.expected, self.found, self.done, self.next_step)


def _rebuild(kind: type[PipelineError], expected: str, found: str, done: str, next_step: str) -> PipelineError:
    return kind(expected=expected, found=found, done=done, next_step=next_step)


class CheckError(PipelineError):
    """A check failed: a claim does not hold."""

    status = 1


class UsageError(PipelineError):
    """Invalid usage: the command line is wrong."""

    status = 2


class InputError(PipelineError):
    """A file from the user, or a downloaded one, cannot be used."""

    status = 3


class ResourceError(PipelineError):
    """A resource is unavailable: no network, no permission, or no disk space."""

    status = 4


class ToolError(PipelineError):
    """The converter, the compiler or another tool failed."""

    status = 5


def reason(error: Exception) -> str:
    """Why the file system or a library failed, for `found`: the message without error number and file name."""
    return getattr(error, "strerror", None) or str(error)
