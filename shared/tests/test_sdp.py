"""Session descriptions: what is read, what is refused, what is written again."""

import pytest

from dialbus.sdp import PCMU, Codec, Media, SdpError, all_values, parse, parse_attributes, parse_media, sections, write

SESSION = "v=0\r\no=- 1 2 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"


def test_everything_legal_is_read() -> None:
    text = (
        "v=0\no=ada 2890844526 2890842807 IN IP4 host.example.net\ns=Ünïcode\ni=info\nu=http://x\ne=a@b\np=+1\n"
        "c=IN IP6 ::1\nb=AS:64\nt=0 0\nr=7d 1h 0 25h\nz=0 0\nk=prompt\nx=unknown\na=recvonly\na=tool:x:y\n"
        "m=audio 49170/2 RTP/AVP 0 96\ni=title\nc=IN IP4 224.2.1.1/127/3\nb=AS:1\na=rtpmap:96 opus/48000/2\n"
        "a=fmtp:96 useinbandfec=1\nm=video 0 RTP/AVP 31"
    )
    description = parse(text)

    audio, video = description.media
    assert (description.name, description.address, description.session_id) == ("Ünïcode", "::1", 2890844526)
    assert (audio.port, audio.port_count, audio.address) == (49170, 2, "224.2.1.1")
    assert audio.codecs == (PCMU, Codec("opus", 48000, 96, 2, "useinbandfec=1"))
    assert (video.kind, video.port, video.formats) == ("video", 0, ("31",))
    assert description.direction(audio) == "recvonly"
    assert description.attribute("tool") == "x:y"
    assert parse(write(description)) == description


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\r\n",
        "v=1\r\n",
        SESSION.replace("v=0", "v=x"),
        SESSION.replace("v=0\r\n", ""),
        SESSION.replace("s=-\r\n", ""),
        SESSION.replace("t=0 0\r\n", ""),
        SESSION.replace("o=-", "x=-"),
        SESSION.replace("o=- 1 2", "o=- one 2"),
        SESSION.replace("s=-", "s=-\r\ns=-"),
        SESSION.replace("c=IN IP4 192.0.2.1", "c=IN IP4 999.0.2.1"),
        SESSION.replace("c=IN IP4 192.0.2.1", "c=IN IP6 192.0.2.1x:"),
        SESSION.replace("c=IN IP4 192.0.2.1", "c=ATM X 1"),
        SESSION.replace("c=IN IP4 192.0.2.1", "c=IN IP4"),
        SESSION + "m=audio",
        SESSION + "m=audio 70000 RTP/AVP 0",
        SESSION + "m=audio -1 RTP/AVP 0",
        SESSION + "m=audio 49170/x RTP/AVP 0",
        SESSION + "m=audio 49170 RTP/AVP",
        SESSION + "m=audio ٤ RTP/AVP 0",
        SESSION + "garbage",
        SESSION + "a=",
        SESSION + "a=x\r\n\r\na=y",
        SESSION + "a=x\ry",
        SESSION + "a=x\0",
        SESSION + "a=x\r\n" * 1001,
    ],
)
def test_unusable_text_is_an_sdp_error(text: str) -> None:
    with pytest.raises(SdpError):
        parse(text.encode())


def test_a_media_line_is_plain_data() -> None:
    media = Media("audio", 1, "RTP/AVP", ("0",), (("ptime", "20"), ("rtcp-mux", None)))
    assert (media.attribute("ptime"), media.attribute("rtcp-mux"), media.attribute("x")) == ("20", "", None)


def test_sections_are_read_without_what_nobody_asks_for() -> None:
    session, audio = sections("v=0\na=group:BUNDLE 0\na=group:LS 0 1\nm=audio 9 RTP/SAVPF 0\nc=what\na=mid: 0 \n")
    assert all_values(parse_attributes(session), "group") == ["BUNDLE 0", "LS 0 1"]
    assert parse_media(audio, strict=False).attribute("mid") == "0"
    with pytest.raises(SdpError):
        parse_media(audio)
    with pytest.raises(SdpError):
        sections("v=0\na=x\n" * 2, max_lines=3)
