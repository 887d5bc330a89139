"""What the checks before a run found, as lines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from vlmdata.errors import InputError, Mistakes, RecipeError
from vlmdata.redact import redacted
from vlmdata.untrusted import one_line


@dataclass
class Findings:
    """The lines that the checks before a run found. Each says where and what, and how to fix it."""

    mistakes: list[str] = field(default_factory=list)  # each stops a run
    notes: list[str] = field(default_factory=list)  # worth reading before a run
    facts: list[str] = field(default_factory=list)  # what was measured: an estimate of the disk space, the sample of `--deep`
    advice: list[str] = field(default_factory=list)  # those notes that --quiet silences: no row is lost, and the disk suffices

    def advise(self, line: str) -> None:
        """Add a note that `run --quiet` does not print."""
        self.notes.append(line)
        self.advice.append(line)

    def clean(self) -> Findings:
        """Return the same lines, each once and without secrets."""
        every = (self.mistakes, self.notes, self.facts, self.advice)
        return Findings(*([redacted(line) for line in dict.fromkeys(lines)] for lines in every))


def attempt_check(check: Callable[[], None], findings: Findings) -> None:
    """Run one check, and add the mistakes that it raises. An error of the machine, such as a missing permission, is one."""
    try:
        check()
    except Mistakes as error:
        findings.mistakes += error.lines
    except (RecipeError, InputError) as error:
        findings.mistakes.append(one_line(error))
    except OSError as error:
        findings.mistakes.append(one_line(error))
