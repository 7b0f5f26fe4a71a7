"""Exit 0 when the service of this container answers /health with 200, else 1 with the reason.

The address is the one that the service announced in `DIALBUS_RUN_DIR`, so that it may be any free port: several
workers on the host's network have no fixed one. The process alone is asked for: the gateway's /health else tells of
all services, and those that wait for a healthy gateway would never begin.
"""

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path


def main() -> int:
    """Ask the newest announced address; a restarted container may hold an older one too."""
    announced = sorted(Path(os.environ["DIALBUS_RUN_DIR"]).glob("*.json"), key=lambda path: path.stat().st_mtime)
    if not announced:
        return _unhealthy("not announced yet")
    facts = json.loads(announced[-1].read_text())
    url = f"{facts['health']}?service={facts['service']}".replace("//0.0.0.0:", "//127.0.0.1:")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=3.0) as response:
            sys.stdout.write(response.read(2000).decode(errors="replace"))
    except urllib.error.HTTPError as error:
        return _unhealthy(f"{error.code} {error.read(2000).decode(errors='replace')}")
    except OSError as error:
        return _unhealthy(f"{url}: {error}")
    return 0


def _unhealthy(why: str) -> int:
    sys.stdout.write(why)
    return 1


if __name__ == "__main__":
    sys.exit(main())
