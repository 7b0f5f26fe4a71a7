"""What keeps the code readable: reasons for what is not checked."""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "shared/dialbus", "cli/dialbus_cli", "services/gateway/gateway", "services/sip-ua/sip_ua", "services/media/media",
    "services/asr/asr", "services/tts/tts", "services/webhook-dispatcher/webhook_dispatcher",
)  # fmt: skip
OTHERS = ("tests", "scripts", "examples", "conftest.py", *(str(Path(package).parent / "tests") for package in PACKAGES))
REASONED = re.compile(r"# type: ignore\[[a-z-]+(, ?[a-z-]+)*\]  # \w")


def sources(*folders: str) -> Iterator[tuple[str, str]]:
    """Path and text of every module."""
    for folder in folders:
        place = ROOT / folder
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            yield path.relative_to(ROOT).as_posix(), path.read_text()


def test_an_ignored_type_error_has_its_reason() -> None:
    silent = [
        f"{path}:{token.start[0]}"
        for path, text in sources(*PACKAGES, *OTHERS)
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT and "type: ignore" in token.string and not REASONED.match(token.string)
    ]
    assert not silent, "say why, as in `# type: ignore[arg-type]  # takes None too`:\n" + "\n".join(silent)
