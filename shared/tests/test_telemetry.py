"""Log lines of text: what an outsider wrote can neither end a line nor steer a terminal."""

import subprocess
import sys

CONTROLS = [chr(code) for code in (*range(0x20), 0x7F, 0x9B)]


def logged(statements: str) -> str:
    """What a service of its own process writes to standard error as text."""
    begin = 'from dialbus import telemetry\ntelemetry.configure(service="test", instance="t")\n'
    code = f"{begin}log = telemetry.get_logger()\n{statements}"
    return subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, check=True).stderr.decode()


def test_control_characters_are_quoted() -> None:
    said = [f"a{control}b" for control in CONTROLS]
    text = logged(f'for said in {said!r}: log.info("a.line", said=said, within={{"said": said}})')
    lines = text.split("\n")[:-1]
    assert len(lines) == len(said)
    for line, what in zip(lines, said, strict=True):
        assert f"said={what!r}" in line
        assert not set(line) & set(CONTROLS)


def test_what_has_no_controls_is_written_as_it_is() -> None:
    assert "said=hello" in logged('log.info("a.line", said="hello")')


def test_tracebacks_keep_their_lines_and_lose_other_controls() -> None:
    text = logged('try: raise ValueError("bell\\x07")\nexcept ValueError: log.exception("a.fault")')
    assert "\nValueError: bell\\x07" in text
    assert "\x07" not in text
