"""What a client's options ask of a leg's media: before the answer, and with it. Pure functions."""

from dialbus.contracts.media import REFER_LEG, ConfigureLeg
from dialbus.contracts.options import AmbianceOption, CallOption, RecorderOption, ReferOption
from dialbus.contracts.session import CallType
from sip_ua.call.effects import Ask, Effect
from sip_ua.call.state import Call

_WHICH_LEG = {"call_id", "leg_id"}


def _unless_empty(wanted: ConfigureLeg) -> list[Effect]:
    return [Ask(wanted)] if wanted.model_dump(exclude_none=True, exclude=_WHICH_LEG) else []


def before_answer(call: Call) -> list[Effect]:
    """The option's processing; recognition alone can be put off (startWhenAnswer)."""
    option = call.option
    wanted = ConfigureLeg(
        call_id=call.call_id,
        denoise=True if option.denoise else None,
        vad=option.vad,
        asr=None if _waits(option) else option.asr,
        tts=option.tts,
        recorder=option.recorder or call.settings.recorder,
        agc=option.agc,
        ambiance=_ambiance(call),
        media_pass=option.media_pass,
        subscribe=True if option.subscribe and call.call_type is not CallType.WEBSOCKET else None,
    )
    return _with_complaints_held(call, wanted)


def early_recorder(call: Call, recorder: RecorderOption) -> list[Effect]:
    """A recording that begins with `ringing`."""
    return _with_complaints_held(call, ConfigureLeg(call_id=call.call_id, recorder=recorder))


def _with_complaints_held(call: Call, wanted: ConfigureLeg) -> list[Effect]:
    """No `error` event may come before the outcome of an `invite` (G2)."""
    if not _unless_empty(wanted):
        return []
    call.is_configured = True
    return [Ask(wanted.model_copy(update={"answered": False}))]


def with_answer(call: Call) -> list[Effect]:
    """What begins with the answer, and what nobody provides: told after it (G2)."""
    option = call.option
    detection = option.ringback_detection
    asked = {
        "eou": option.eou is not None,
        "ringbackDetection": detection is not None and detection.get("enabled") is not False,
        "realtime": option.realtime is not None,
        "enableSrtp": option.sip is not None and bool(option.sip.enable_srtp),
    }
    return _unless_empty(
        ConfigureLeg(
            call_id=call.call_id,
            answered=True if call.is_configured else None,
            asr=option.asr if _waits(option) else None,
            inactivity_timeout_s=option.inactivity_timeout or None,
            unsupported=[name for name, is_asked in asked.items() if is_asked] or None,
        )
    )


def second_before_answer(call_id: str, options: ReferOption) -> list[Effect]:
    """The processing of the audio of a transfer's target."""
    return _unless_empty(
        ConfigureLeg(
            call_id=call_id,
            leg_id=REFER_LEG,
            denoise=True if options.denoise else None,
            vad=options.vad,
            asr=None if _waits(options) else options.asr,
            agc=options.agc,
        )
    )


def second_with_answer(call_id: str, options: ReferOption) -> list[Effect]:
    """Recognition that was put off."""
    if not _waits(options):
        return []
    return [Ask(ConfigureLeg(call_id=call_id, leg_id=REFER_LEG, asr=options.asr))]


def _waits(option: CallOption | ReferOption) -> bool:
    return option.asr is not None and option.asr.start_when_answer


def _ambiance(call: Call) -> AmbianceOption | None:
    """The settings' background sound, with what the client names of it instead."""
    general, chosen = call.settings.ambiance, call.option.ambiance
    if general is None or chosen is None:
        return chosen or general
    return general.model_copy(update={name: getattr(chosen, name) for name in chosen.model_fields_set})
