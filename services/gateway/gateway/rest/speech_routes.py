"""`/precache`: speech made ready before a call needs it (protocol section 7.6)."""

import asyncio
import secrets
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from dialbus.bus import Bus, NoReply, NoResponder, Refused
from dialbus.config import ProvidersConfig
from dialbus.contracts.commands import load_json
from dialbus.contracts.speech import Cached, CacheSpeech, CancelCaching
from dialbus.providers import NotAvailable
from dialbus.tasks import cancel_all
from gateway.rest import models
from gateway.rest.answers import BAD, BUSY, LARGE, TooLarge, add, body_of, json_body, trouble
from gateway.rest.descriptions import SPEECH
from gateway.rest.precache import cache_request
from gateway.socket.parsing import MAX_TEXT_BYTES

RETRY_AFTER_S = 5
MAX_WAITING = 256
"""Posts of one gateway that wait for tts workers; these refuse much earlier when they are well."""
_SYNTHESIS_S = 120.0
_SPARE_S = 5.0
"""What a worker's refusal may need on its way back."""


class SpeechRoutes:
    """What is asked of tts workers without a call."""

    def __init__(self, bus: Bus, providers: ProvidersConfig) -> None:
        self._bus = bus
        self._providers = providers
        self._waiting = 0

    def add_to(self, router: APIRouter) -> None:
        """Add the route."""
        add(router, "/precache", self.precache, "POST", response_model=models.Precached, tags=["speech"],
            responses=BAD | LARGE | BUSY | {500: {"model": models.Trouble, "description": "Synthesis failed."}},
            openapi_extra=json_body(SPEECH, {"text": {"value": {"text": "One moment, please."}}}))  # fmt: skip

    async def precache(self, request: Request) -> Any:
        """Synthesise a text now, so that a later `tts` of the same text and voice starts at once."""
        asker = {"asker": secrets.token_hex(8), "wait_ms": int(1000 * _SYNTHESIS_S)}
        try:
            data = load_json((await body_of(request, MAX_TEXT_BYTES)).decode())
            speech = cache_request(data, self._providers, **asker)
        except TooLarge:
            return trouble(413, f"a command has at most {MAX_TEXT_BYTES} bytes")
        except (ValueError, NotAvailable) as error:
            return trouble(400, str(error))
        if self._waiting >= MAX_WAITING:
            return _busy(f"{self._waiting} texts wait to be made ready")
        self._waiting += 1
        try:
            answer = await self._synthesise(speech, request)
        except NoResponder:
            return trouble(503, "no tts worker is there")
        except NoReply:
            return trouble(500, "synthesis took too long")
        except Refused as refused:
            if refused.code == 503:
                return _busy(refused.reason)
            return trouble(400 if refused.code in (400, 404) else 500, refused.reason)
        finally:
            self._waiting -= 1
        return models.Precached(
            status="exists" if answer.existed else "cached",
            cache_key=answer.cache_key,
            key=answer.cache_key,
            bytes=answer.size_bytes,
        )

    async def _synthesise(self, speech: CacheSpeech, request: Request) -> Cached:
        """The answer of a tts worker; when the client leaves before it, the worker is told and drops the text."""
        asking = asyncio.create_task(self._bus.request(speech, timeout_s=_SYNTHESIS_S + _SPARE_S), name="precache")
        leaving = asyncio.create_task(_disconnected(request), name="precache left")
        try:
            await asyncio.wait({asking, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                return asking.result()
            raise Refused(503, "the client has left")
        except (UnicodeEncodeError, ValueError) as error:
            raise Refused(400, f"not a usable text: {error}") from None
        finally:
            answered = asking.done()
            await cancel_all((asking, leaving))
            if not answered:
                await self._bus.publish(CancelCaching(asker=speech.asker))


async def _disconnected(request: Request) -> None:
    """Until the client, whose body was read, is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _busy(error: str) -> Response:
    """Not now; and when to ask again."""
    answer = trouble(503, error)
    answer.headers["Retry-After"] = str(RETRY_AFTER_S)
    return answer
