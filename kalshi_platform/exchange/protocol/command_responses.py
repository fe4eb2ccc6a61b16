"""Applies command responses and errors to the streams and subscriptions of a session. Pure."""

from __future__ import annotations

from kalshi_platform.exchange.parse.messages import ErrorBody, Frame, ListedBody
from kalshi_platform.exchange.protocol.error_codes import ErrorAction, action_for
from kalshi_platform.exchange.protocol.sequence import Stream
from kalshi_platform.exchange.protocol.session_model import SessionOutput
from kalshi_platform.exchange.protocol.stream_registry import StreamRegistry
from kalshi_platform.exchange.protocol.subscriptions import Subscriptions


class ResponseHandler:
    """Handles `ok`, `unsubscribed` and `error`; the session itself handles `subscribed`, which opens a stream."""

    def __init__(self, streams: StreamRegistry, subscriptions: Subscriptions, output: SessionOutput) -> None:
        self._streams = streams
        self._subscriptions = subscriptions
        self._output = output
        self._expected_open: tuple[int, tuple[Stream, ...]] = (0, ())

    def handle(self, frame: Frame, stream: Stream | None, received_at_ns: int, now_ns: int) -> None:
        """Apply one response; `stream` is the one that it names."""
        body = frame.body
        if frame.type == "ok":
            if type(body) is ListedBody:
                self._compare_open(set(body.subscriptions), frame.id, received_at_ns, now_ns)
            command = self._subscriptions.answered(frame.id, now_ns)
            if command is not None and command.kind == "subscribe" and stream is not None:
                self._subscriptions.opened(stream.channel, stream.sid, frame.id, now_ns)
        elif frame.type == "unsubscribed":
            if stream is not None:
                self._end(stream, "unsubscribed", received_at_ns, now_ns)
        elif isinstance(body, ErrorBody):
            ended = self._ended_by(frame, body, stream)
            if not ended:
                self._output.alarms += self._subscriptions.refused(
                    frame.id, body.code, body.message, body.tickers, now_ns
                )
            for each in ended:
                self._output.add_alarm("stream_ended", f"{each.channel}: error {body.code}: {body.message[:200]}")
                self._end(each, f"error_{body.code}", received_at_ns, now_ns)

    def list_subscriptions(self, now_ns: int) -> None:
        """Request the subscriptions that the exchange serves, and remember those that it should serve."""
        self._expected_open = (self._subscriptions.list_subscriptions(now_ns), tuple(self._streams))

    def _compare_open(
        self, served: set[tuple[str, int]], command_id: int | None, received_at_ns: int, now_ns: int
    ) -> None:
        """End the streams that were open at the request and that the exchange does not serve."""
        requested_by, streams = self._expected_open
        if command_id != requested_by:
            return
        self._expected_open = (0, ())
        for stream in streams:
            if self._streams.by_sid.get(stream.sid) is stream and (stream.channel, stream.sid) not in served:
                self._output.add_alarm("stream_ended", f"{stream.channel}: the exchange serves no sid {stream.sid}")
                self._end(stream, "not_served", received_at_ns, now_ns)

    def _ended_by(self, frame: Frame, error: ErrorBody, stream: Stream | None) -> list[Stream]:
        """Return the streams that an error ends: its own; those of a book command; all if it names none."""
        if action_for(error.code) is not ErrorAction.RESUBSCRIBE:
            return []
        if stream is not None:
            return [stream]
        if self._subscriptions.is_book_command(frame.id):
            return [each for each in self._streams if each.is_book]
        if frame.sid is not None or frame.id is not None:
            return []
        return list(self._streams)

    def _end(self, stream: Stream, reason: str, received_at_ns: int, now_ns: int) -> None:
        self._streams.end(stream, received_at_ns, reason)
        self._subscriptions.stream_ended(stream.channel, now_ns)
