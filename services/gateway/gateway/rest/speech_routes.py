"""`/precache`: speech made ready before a call needs it (protocol section 7.6)."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request

from dialbus.bus import Bus, NoReply, NoResponder, Refused
from dialbus.config import ProvidersConfig
from dialbus.contracts.commands import load_json
from dialbus.contracts.speech import Cached, CacheSpeech
from dialbus.providers import NotAvailable
from gateway.rest import models
from gateway.rest.answers import AWAY, BAD, LARGE, TooLarge, add, body_of, json_body, trouble
from gateway.rest.descriptions import SPEECH
from gateway.rest.precache import cache_requests
from gateway.socket.parsing import MAX_TEXT_BYTES

_SYNTHESIS_S = 120.0


class SpeechRoutes:
    """What is asked of tts workers without a call."""

    def __init__(self, bus: Bus, providers: ProvidersConfig) -> None:
        self._bus = bus
        self._providers = providers

    def add_to(self, router: APIRouter) -> None:
        """Add the route."""
        add(router, "/precache", self.precache, "POST", response_model=models.Precached, tags=["speech"],
            responses=BAD | LARGE | AWAY | {500: {"model": models.Trouble, "description": "Synthesis failed."}},
            openapi_extra=json_body(SPEECH, {"text": {"value": {"text": "One moment, please."}}}))  # fmt: skip

    async def precache(self, request: Request) -> Any:
        """Synthesise a text now, so that a later `tts` of the same text and voice starts at once."""
        try:
            wanted = cache_requests(load_json((await body_of(request, MAX_TEXT_BYTES)).decode()), self._providers)
        except TooLarge:
            return trouble(413, f"a command has at most {MAX_TEXT_BYTES} bytes")
        except (ValueError, NotAvailable) as error:
            return trouble(400, str(error))
        answers: list[Cached] = []
        for speech in wanted:
            try:
                answers.append(await self._synthesise(speech))
            except NoResponder:
                return trouble(503, "no tts worker is there")
            except NoReply:
                return trouble(500, "synthesis took too long")
            except Refused as refused:
                status = 503 if refused.code == 503 else 400 if refused.code in (400, 404) else 500
                return trouble(status, refused.reason)
        first = answers[0]
        return models.Precached(
            status="exists" if all(answer.existed for answer in answers) else "cached",
            cache_key=first.cache_key,
            key=first.cache_key,
            bytes=first.size_bytes,
        )

    async def _synthesise(self, speech: CacheSpeech) -> Cached:
        try:
            return await self._bus.request(speech, timeout_s=_SYNTHESIS_S)
        except (UnicodeEncodeError, ValueError) as error:
            raise Refused(400, f"not a usable text: {error}") from None
