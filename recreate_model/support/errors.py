"""The one family of errors a user sees: what was expected, what was found, what was done, what to type next.

Every error the project raises on purpose is a `PipelineError`; the command line prints it as one line and exits with
its `status`. Anything else that escapes is a defect of ours.
"""

from __future__ import annotations


class PipelineError(Exception):
    """A failure with its exit status and the four things a user needs.

    Args:
        expected: what should have been there.
        found: what was there instead.
        done: what was done about it; by default nothing was written.
        next_step: the command or the change that helps.
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
        # Keyword-only arguments do not survive the default pickling, and worker processes raise these errors.
        return _rebuild, (type(self), self.expected, self.found, self.done, self.next_step)


def _rebuild(kind: type[PipelineError], expected: str, found: str, done: str, next_step: str) -> PipelineError:
    return kind(expected=expected, found=found, done=done, next_step=next_step)


class CheckError(PipelineError):
    """Something that was claimed does not hold."""

    status = 1


class UsageError(PipelineError):
    """The command line asks for something that does not exist."""

    status = 2


class InputError(PipelineError):
    """A file the user gave, or one that was fetched, cannot be used."""

    status = 3


class ResourceError(PipelineError):
    """Something needed could not be had: no network, no permission, no space."""

    status = 4


class ToolError(PipelineError):
    """The converter, the compiler or another tool failed."""

    status = 5
