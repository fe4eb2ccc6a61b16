"""Where a journal does not go on at a database's position, that is said."""

from __future__ import annotations

from kalshi_platform.gatherer.ingest.fence import LOST, CommittedPosition, Fence
from kalshi_platform.gatherer.journal.block_format import Position
from kalshi_platform_tests.fixtures.clocks import FakeClock


def test_a_journal_whose_folder_was_emptied_behind_the_position_is_lost() -> None:
    fence = Fence(5)
    fence._updated_at = FakeClock().now()
    found, end = CommittedPosition(3, 5, Position(1, 500)), Position(1, 900)
    loss = fence.describe_loss(found, end, end)
    assert loss is not None
    assert loss[0] == LOST
    assert "folder is empty" in loss[1]
    assert fence.describe_loss(CommittedPosition(3, 5, end), end, end) is None
    assert fence.describe_loss(found, Position(1, 0), end) is None
    # Nothing could be written yet.
    assert fence.describe_loss(CommittedPosition(0, None, Position(0, 0)), Position(1, 0), Position(1, 0)) is None
