"""What takes long: time-outs of half a minute and more. The scenarios of waits.py run beside the other tests."""

import pytest

from tests.conformance.parties import Background
from tests.conformance.waits import ACCEPT_S, NO_ANSWER_S, RINGING_S


@pytest.mark.row("P-25", "O3")
@pytest.mark.timeout(90)
async def test_p025_no_response_at_all_is_408_after_32_seconds(background: Background) -> None:
    outcome = await background.outcome("nobody there")
    assert outcome.story == "T(main) reject{408} E(main) hangup{noAnswer,system}"
    assert next(e for e in outcome.events if e["event"] == "reject")["reason"] == "Request Timeout"
    assert outcome.close_code == 1000
    assert NO_ANSWER_S - 1 < outcome.after_s < NO_ANSWER_S + 10
    assert not any(line.startswith("CANCEL") for line in outcome.sip), "no 1xx, so nothing to cancel"


@pytest.mark.row("P-35", "O14")
@pytest.mark.fault("X-11")
@pytest.mark.timeout(90)
async def test_p035_a_call_that_nobody_accepts_is_408_even_while_it_rings(background: Background) -> None:
    outcome = await background.outcome("nobody accepts")
    assert outcome.story in ("incoming hangup{noAnswer,system}", "incoming T(main) E(main) hangup{noAnswer,system}")
    assert outcome.close_code == 1000
    assert ACCEPT_S - 2 < outcome.after_s < ACCEPT_S + 10


@pytest.mark.row("P-06", "P-09")
@pytest.mark.timeout(90)
async def test_p006_the_first_ping_comes_after_20_seconds_by_default(background: Background) -> None:
    [ping] = await background.outcome("keeps quiet")
    assert 19 < ping["after"] < 30


@pytest.mark.row("P-25", "O3")
@pytest.mark.timeout(220)
async def test_p025_ringing_for_three_minutes_is_408_and_cancelled(background: Background) -> None:
    outcome = await background.outcome("rings on")
    assert outcome.story == "T(main) ringing reject{408} E(main) hangup{noAnswer,system}"
    assert next(e for e in outcome.events if e["event"] == "reject")["reason"] == "Request Timeout"
    assert outcome.close_code == 1000
    assert RINGING_S - 2 < outcome.after_s < RINGING_S + 15
    assert any(line.startswith("CANCEL") for line in outcome.sip)
