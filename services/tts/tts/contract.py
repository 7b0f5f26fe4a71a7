"""The contracts that tts speaks; subjects and fields are in `dialbus.contracts`."""

from dialbus.contracts.audio import AudioFrame
from dialbus.contracts.session import Heartbeat
from dialbus.contracts.speech import Cached, CacheSpeech, CancelSpeech, Speak, SpeechTaken

PUBLISHES = (SpeechTaken, Cached, AudioFrame, Heartbeat)
CONSUMES = (Speak, CacheSpeech, CancelSpeech)
