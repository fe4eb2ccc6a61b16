"""Ask every gatherer at once and wait for none of them longer than agreed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from kalshi_platform.clock import Clock

Answer = TypeVar("Answer")


class Reading(Generic[Answer]):
    """One question to one gatherer, in a daemon thread: a hanging server must not hold up the end of the process."""

    def __init__(self, name: str, question: Callable[[], Answer]) -> None:
        self._question = question
        self._done = threading.Event()
        self.answer: Answer | None = None
        self.error: Exception | None = None
        threading.Thread(target=self._run, name=f"read-{name}", daemon=True).start()

    def _run(self) -> None:
        try:
            self.answer = self._question()
        except Exception as error:  # noqa: BLE001 - handed to whoever waits
            self.error = error
        finally:
            self._done.set()

    def wait(self, seconds: float) -> bool:
        """Return whether there is an answer or an error within `seconds`."""
        return self._done.wait(max(0.0, seconds))


class Readers(Generic[Answer]):
    """Questions to gatherers that outlast a pass: a late answer is found by a later pass, and none is asked twice."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: dict[str, Reading[Answer]] = {}

    def ask(
        self, questions: Mapping[str, Callable[[], Answer]], timeout_s: float
    ) -> tuple[dict[str, Answer], dict[str, Exception]]:
        """Return answers and errors by gatherer. Who has not answered in time has a TimeoutError."""
        for name, question in questions.items():
            if name not in self._open:
                self._open[name] = Reading(name, question)
        deadline = self._clock.monotonic() + timeout_s
        answers: dict[str, Answer] = {}
        errors: dict[str, Exception] = {}
        for name in questions:
            reading = self._open[name]
            if not reading.wait(deadline - self._clock.monotonic()):
                errors[name] = TimeoutError(f"no answer within {timeout_s:g} s; still waiting for it")
                continue
            del self._open[name]
            if reading.error is not None:
                errors[name] = reading.error
            else:
                answers[name] = reading.answer  # type: ignore[assignment]
        return answers, errors
