"""The contracts that asr speaks; subjects and fields are in `dialbus.contracts`."""

from dialbus.contracts.audio import AudioFrame
from dialbus.contracts.session import Heartbeat
from dialbus.contracts.speech import CloseTranscription, OpenTranscription, Transcript, TranscriptionOpened

PUBLISHES = (TranscriptionOpened, Transcript, Heartbeat)
CONSUMES = (OpenTranscription, AudioFrame, CloseTranscription)
