"""One call, without I/O: its states, the validity of commands and the order of events (protocol sections 2 to 6).

`machine` is the call itself, `transfer` the second leg of `refer`, `bridges` the patches to other calls; `effects`
is what they want done.
"""

from sip_ua.call.bridges import Bridges
from sip_ua.call.effects import (
    AddCandidate,
    AllocateMedia,
    AskBridge,
    BridgeMedia,
    CloseMedia,
    ConfigureMedia,
    ConnectMedia,
    ControlPlayback,
    Dial,
    Effect,
    Emit,
    EndLostTracks,
    FindCallee,
    Finish,
    JoinLegs,
    LeaveBridge,
    NoteInput,
    SendAnswer,
    SendBye,
    SendCancel,
    SendInvite,
    SendMessage,
    SendReject,
    SendRinging,
    StopPlayback,
    UnbridgeMedia,
)
from sip_ua.call.machine import VALID, CallMachine, InboundOffer
from sip_ua.call.transfer import Transfer

__all__ = [
    "VALID",
    "AddCandidate",
    "AllocateMedia",
    "AskBridge",
    "BridgeMedia",
    "Bridges",
    "CallMachine",
    "CloseMedia",
    "ConfigureMedia",
    "ConnectMedia",
    "ControlPlayback",
    "Dial",
    "Effect",
    "Emit",
    "EndLostTracks",
    "FindCallee",
    "Finish",
    "InboundOffer",
    "JoinLegs",
    "LeaveBridge",
    "NoteInput",
    "SendAnswer",
    "SendBye",
    "SendCancel",
    "SendInvite",
    "SendMessage",
    "SendReject",
    "SendRinging",
    "StopPlayback",
    "Transfer",
    "UnbridgeMedia",
]
