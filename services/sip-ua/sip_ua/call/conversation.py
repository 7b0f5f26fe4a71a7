"""What a call does apart from beginning and ending: playback, messages, keys, history, candidates, bridges."""

from dialbus.contracts.commands import (
    AddIceCandidate,
    Bridge,
    ClientCommand,
    Custom,
    History,
    Interrupt,
    Message,
    Mute,
    Pause,
    Play,
    Resume,
    Tts,
    Unbridge,
    Unmute,
)
from dialbus.contracts.events import AddHistory, CustomEvent
from dialbus.contracts.media import MAIN_LEG, REFER_LEG, AddCandidate, NoteInput, Playback, PlaybackCommand
from dialbus.contracts.session import CallState, CallType
from sip_ua.call.effects import AnswerBridge, Ask, Effect, Emit, SendMessage
from sip_ua.call.inputs import (
    BridgeAgreed,
    BridgeLeft,
    BridgeRefused,
    BridgeWanted,
    CommandRefused,
    LegDigit,
    LegMessage,
    LegTransferAsked,
    MediaChanged,
    MediaReady,
    MessageRefused,
)
from sip_ua.call.leg import Phase
from sip_ua.call.state import Call

MAX_HELD = 200
MAX_HELD_SIZE = 1 << 20
"""Commands, and characters of JSON, that may wait for an answer (protocol Q-22)."""

MAX_CANDIDATES = 64
"""ICE candidates that may wait for the leg."""

_PLAIN_TEXT = "text/plain;charset=utf-8"


# -- steps of every call ------------------------------------------------------------------------------


def media_here(call: Call, ready: MediaReady, now: float) -> list[Effect]:
    """The main leg has a place: its track begins, and candidates that waited are told."""
    main = call.main
    main.awaits_media, main.has_media = False, True
    main.ssrc, main.local_sdp, main.remote = ready.ssrc, ready.sdp, ready.remote
    candidates, call.candidates = call.candidates, []
    return [main.start_track(now), *(Ask(candidate) for candidate in candidates)]


def answered(call: Call, sdp: str, now: float) -> list[Effect]:
    """The call is up."""
    call.accept_by = call.webhook_by = None
    return [call.main.answer(sdp, now)]


def release_held(call: Call) -> list[Effect]:
    """Play what waited for the answer (O17)."""
    held, call.held, call.held_size = call.held, [], 0
    return [_play(call, command) for command in held if isinstance(command, Tts | Play | Mute | Unmute)]


def _play(call: Call, command: PlaybackCommand) -> Effect:
    return Ask(Playback(call_id=call.call_id, command=command))


# -- the client's commands ----------------------------------------------------------------------------


def play(call: Call, command: Tts | Play, _: float) -> list[Effect]:
    """`tts` and `play`."""
    return [_play(call, command)]


def play_early(call: Call, command: Tts | Play, now: float) -> list[Effect]:
    """In a pending call they need early media."""
    if not call.main.has_media:
        return [call.error(f"{command.command}: the call has no early media yet", now)]
    return [_play(call, command)]


def hold_playback(call: Call, command: Tts | Play, now: float) -> list[Effect]:
    """While dialing they are held for the answer (O17)."""
    size = len(command.to_json())
    if len(call.held) >= MAX_HELD or call.held_size + size > MAX_HELD_SIZE:
        return [call.error(f"{command.command}: too much waits for the answer already", now)]
    call.held.append(command)
    call.held_size += size
    return []


def pause(call: Call, command: Pause | Resume, now: float) -> list[Effect]:
    """`pause` and `resume` of what plays."""
    if not call.main.has_media:
        return [call.error(f"track not found: {call.server_track}", now)]
    return [_play(call, command)]


def interrupt(call: Call, command: Interrupt, _: float) -> list[Effect]:
    """`interrupt` is never an error, and never waits; behind playback that does, it has a second turn."""
    if any(isinstance(waits, Tts | Play) for waits in call.waiting):
        call.waiting.append(command)
    return [_play(call, command)] if call.main.has_media else []


def mute(call: Call, command: Mute | Unmute, _: float) -> list[Effect]:
    """`mute` and `unmute` before there is media count later."""
    if call.main.has_media:
        return [_play(call, command)]
    call.held = [*call.held, command][-MAX_HELD:]
    return []


def history(call: Call, command: History, now: float) -> list[Effect]:
    """`history`."""
    at = call.clock.ms(now)
    return [Emit(AddHistory(timestamp=at, speaker=command.speaker, text=command.text, sender=call.call_id))]


def custom(call: Call, command: Custom, now: float) -> list[Effect]:
    """`custom`."""
    return [Emit(CustomEvent(timestamp=call.clock.ms(now), data=command.data, sender=command.sender))]


def message(call: Call, command: Message, now: float) -> list[Effect]:
    """`message` to the remote party, or to a transferred one."""
    if command.refer:
        if call.second is None or call.second.leg.phase is not Phase.UP:
            return [call.error("message: there is no transferred leg that is up", now, code=409)]
    elif call.call_type is not CallType.SIP:
        return [call.error("message: the call is not a SIP call", now, code=409)]
    leg = REFER_LEG if command.refer else MAIN_LEG
    return [SendMessage(command.body, command.content_type or _PLAIN_TEXT, command.headers or {}, leg)]


def candidate(call: Call, command: AddIceCandidate, _: float) -> list[Effect]:
    """A trickled candidate; without a leg it waits, and on calls without ICE it means nothing (protocol 2.14)."""
    if call.call_type is not CallType.WEBRTC:
        return []
    trickled = AddCandidate(
        call_id=call.call_id,
        candidate=command.candidate,
        sdp_mid=command.sdp_mid,
        sdp_m_line_index=command.sdp_m_line_index,
    )
    if call.main.has_media:
        return [Ask(trickled)]
    call.candidates = [*call.candidates, trickled][-MAX_CANDIDATES:]
    return []


def bridge(call: Call, command: Bridge, now: float) -> list[Effect]:
    """`bridge` to another call."""
    other = command.target_session_id
    if other == call.call_id:
        return [call.error("bridge: a call can't be bridged to itself", now, code=409)]
    if not call.bridges.has_room_for(other):
        return [call.error("bridge: too many bridges", now, code=409)]
    return call.bridges.ask(other)


def unbridge(call: Call, command: Unbridge, now: float) -> list[Effect]:
    """`unbridge`; harmless when there is none."""
    return call.bridges.leave(command.target_session_id, call.main.ssrc, now)


def wait(call: Call, command: ClientCommand, _: float) -> list[Effect]:
    """A command behind one that waits for a media worker; it is taken up when that has answered."""
    call.waiting.append(command)
    return []


def not_valid(call: Call, command: ClientCommand, now: float) -> list[Effect]:
    """A command in a state that section 2 does not allow it in changes nothing."""
    match command.command, call.state:
        case "invite", CallState.PENDING:
            return [call.error("invite: this is a pending inbound call, use accept", now)]
        case "reject", CallState.DIALING:
            return [call.error("reject: the call is outbound, use hangup", now)]
    return [call.error(f"{command.command}: not valid while the call is {call.state.value}", now)]


# -- what the main leg tells --------------------------------------------------------------------------


def media_changed(call: Call, changed: MediaChanged, _: float) -> list[Effect]:
    """A re-INVITE or UPDATE: where media goes may be new."""
    call.main.remote = changed.remote
    return call.main.connect()


def media_changed_while_up(call: Call, changed: MediaChanged, now: float) -> list[Effect]:
    """The same of a call that is up: it may be on hold, or no more."""
    effects = media_changed(call, changed, now)
    return effects if changed.on_hold is None else [*effects, call.main.hold(now, on_hold=changed.on_hold)]


def digit(call: Call, pressed: LegDigit, now: float) -> list[Effect]:
    """A key by SIP INFO is a sign of life."""
    noted = [Ask(NoteInput(call_id=call.call_id))] if call.main.has_media else []
    return [call.main.digit(pressed, now), *noted]


def message_in(call: Call, came: LegMessage, now: float) -> list[Effect]:
    """A MESSAGE from the remote party."""
    return [call.main.message(came, now)]


def transfer_asked(call: Call, asked: LegTransferAsked, now: float) -> list[Effect]:
    """A REFER from the remote party."""
    return [call.main.transfer_asked(asked, now)]


def message_refused(call: Call, refusal: MessageRefused, now: float) -> list[Effect]:
    """A MESSAGE of ours got no 2xx."""
    return [call.error(f"message: the peer answers {refusal.status} {refusal.reason}", now, code=502)]


def command_refused(call: Call, refusal: CommandRefused, now: float) -> list[Effect]:
    """What the client asked for can't be carried out."""
    return [call.error(refusal.reason, now, sender=refusal.sender, code=refusal.code)]


# -- other calls --------------------------------------------------------------------------------------


def bridge_wanted(call: Call, wanted: BridgeWanted, now: float) -> list[Effect]:
    """Another call's owner gets our half, while there is room."""
    if not call.bridges.has_room_for(wanted.other):
        return [AnswerBridge(wanted.other, "the session has too many bridges")]
    return [AnswerBridge(wanted.other), *call.bridges.switch_on(wanted.other, call.main.ssrc, now)]


def bridge_not_up(_: Call, wanted: BridgeWanted, __: float) -> list[Effect]:
    """Only a call that is up has a half to give."""
    return [AnswerBridge(wanted.other, "the session is not up")]


def bridge_left(call: Call, left: BridgeLeft, now: float) -> list[Effect]:
    """The other side has ended it, which always succeeds."""
    return [AnswerBridge(left.other), *call.bridges.left(left.other, call.main.ssrc, now)]


def bridge_agreed(call: Call, agreed: BridgeAgreed, now: float) -> list[Effect]:
    """The other side has switched on."""
    return call.bridges.agreed(agreed.other, call.main.ssrc, now)


def bridge_refused(call: Call, refused: BridgeRefused, now: float) -> list[Effect]:
    """The other side has said no."""
    if not call.bridges.refused(refused.other):
        return []
    return [call.error(f"bridge: {refused.reason}", now, code=refused.code)]
