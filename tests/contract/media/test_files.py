"""Files by URL: kinds, offset, cache, what is not fetched (protocol 2.6, O22); audio in the command itself (2.5.4)."""

import asyncio
import base64
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.contract.media.conftest import SERVER, Dial
from tests.harness import ServiceProcess, eventually
from tests.peers.audio_files import audio_file
from tests.peers.rtp import loud, tone


@pytest.fixture(scope="module")
def media_env(media_env: dict[str, str]) -> dict[str, str]:
    """The worker may reach the site of these tests."""
    return {**media_env, "DIALBUS_FETCH_ALLOW_LOOPBACK": "true"}


class Site:
    """An HTTP server of a client's."""

    def __init__(self) -> None:
        self.files = {
            "/a.mp3": audio_file("mp3", [tone(700, 1.0, 44100)] * 2, 44100),
            "/a.ogg": audio_file("vorbis", [tone(700, 1.0, 44100)] * 2, 44100),
            "/opus": audio_file("opus", [tone(700, 1.0, 48000)], 48000),
            "/text.mp3": b"hello",
        }
        self.asked: list[str] = []
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request."""
        path = (await reader.readuntil(b"\r\n\r\n")).decode().split()[1]
        self.asked.append(path)
        body = self.files.get(path.partition("?")[0])
        if path == "/private.mp3":
            writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest/a.mp3\r\n\r\n")
        elif body is None:
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: audio/ogg\r\nConnection: close\r\n\r\n" + body)
        await writer.drain()
        writer.close()


@pytest_asyncio.fixture
async def site() -> AsyncIterator[Site]:
    """Listens on a port of its own."""
    site = Site()
    server = await asyncio.start_server(site.answer, "127.0.0.1", 0)
    site.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield site
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(("path", "offset_ms"), [("/a.mp3", 0), ("/a.ogg", 400), ("/opus", 0)])
async def test_a_url_is_played_and_fetched_once(dial: Dial, site: Site, path: str, offset_ms: int) -> None:
    url = site.url + path
    for count in (1, 2):
        call = await dial()
        await call.do("play", url=url, offsetMs=offset_ms)
        await call.until("trackEnd")

        assert [(event["event"], event["playId"]) for event in call.events] == [("trackStart", url), ("trackEnd", url)]
        seconds, frequency = loud(call.phone.audio(), 8000)
        assert seconds == pytest.approx(1.0 - offset_ms / 1000, abs=0.06)
        assert frequency == pytest.approx(700, abs=2)
        assert site.asked == [path], f"play {count}"


@pytest.mark.parametrize(
    ("path", "code"), [("/missing.mp3", 500), ("/text.mp3", 415), ("/private.mp3", 403), ("http://10.0.0.1/a.mp3", 403)]
)
async def test_what_cannot_be_had_is_an_error_between_start_and_end(
    dial: Dial, site: Site, media: ServiceProcess, path: str, code: int
) -> None:
    call = await dial()
    url = site.url.replace("//", "//joe:secret@") + path if path.startswith("/") else path

    await call.do("play", url=url)
    await call.until("trackEnd")

    assert [event["event"] for event in call.events] == ["trackStart", "error", "trackEnd"]
    error = call.events[1]
    assert (error["sender"], error["trackId"], error["code"]) == (f"filetrack: {url}", SERVER, code)
    assert "secret" not in error["error"]
    assert "secret" not in media.log
    await eventually(lambda: "leg.file_failed" in media.log, what="the log")


async def test_audio_in_the_command_needs_no_synthesiser(dial: Dial) -> None:
    call = await dial()
    wide = base64.b64encode(tone(600, 0.3, 16000).tobytes()).decode()
    other = base64.b64encode(tone(600, 0.3, 24000).tobytes() + b"\x01").decode()

    await call.do("tts", text=wide, base64=True, playId="p")
    await call.do("tts", text=other, base64=True, playId="p", option={"samplerate": 24000})
    await call.do("tts", text="%%%", base64=True, playId="p", endOfStream=True)
    await call.until("trackEnd")

    assert [event["event"] for event in call.events] == ["trackStart", "error", "trackEnd"]
    assert (call.events[1]["sender"], call.events[1]["code"]) == ("tts", 400)
    seconds, frequency = loud(call.phone.audio(), 8000)
    assert seconds == pytest.approx(0.6, abs=0.01)
    assert frequency == pytest.approx(600, abs=2)
