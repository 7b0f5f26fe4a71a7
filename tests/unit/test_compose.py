"""What docker-compose.yml lets a container do that was broken into."""

import re
from pathlib import Path

TEXT = (Path(__file__).parents[2] / "docker-compose.yml").read_text()


def test_every_container_of_ours_has_no_capability_and_gains_none() -> None:
    shared = re.search(r"^x-service: &service\n(.*?)^\S", TEXT, re.M | re.S)
    services = re.search(r"^services:\n(.*?)^volumes:", TEXT, re.M | re.S)
    assert shared is not None
    assert services is not None
    for setting in ("read_only: true", "cap_drop: [ALL]", 'security_opt: ["no-new-privileges:true"]'):
        assert f"  {setting}\n" in shared[1]
    blocks = re.split(r"^  (?=[a-z-]+:\n)", services[1], flags=re.M)[1:]
    ours = [block for block in blocks if not block.startswith("nats:")]
    assert len(ours) == 6
    assert all("<<: *service" in block for block in ours)
    assert not any(setting in block for block in ours for setting in ("cap_add", "privileged:"))
