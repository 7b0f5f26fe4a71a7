"""The latency ledger of a turn."""

from media.leg.ledger import TurnLedger


def test_a_turn_is_told_once_in_milliseconds_since_the_end_of_speech() -> None:
    ledger = TurnLedger()
    ledger.final(3, 100.0, 100.4)
    ledger.text(100.9)
    ledger.text(101.5)
    ledger.audio(101.1)

    assert ledger.sent(101.1234) == {"index": 3, "final": 400, "text": 900, "audio": 1100, "rtp": 1123}
    assert ledger.sent(101.2) is None


def test_what_plays_without_a_turn_is_no_entry() -> None:
    ledger = TurnLedger()
    ledger.text(1.0)
    ledger.audio(1.1)
    assert ledger.sent(1.2) is None

    ledger.final(0, 2.0, 2.5)
    ledger.audio(2.6)  # of the playback before
    assert ledger.sent(2.7) is None


def test_clocks_that_step_back_give_zero_and_nothing_negative() -> None:
    ledger = TurnLedger()
    ledger.final(0, 10.0, 9.9)
    ledger.text(9.9)
    ledger.audio(9.95)

    assert ledger.sent(9.96) == {"index": 0, "final": 0, "text": 0, "audio": 0, "rtp": 0}
