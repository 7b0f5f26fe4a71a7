"""The test page as it is served: everything from this gateway, nothing from elsewhere (its use: tests/interop)."""

import re

import httpx

from tests.harness import ServiceProcess


async def test_page_and_all_it_refers_to_are_served_under_a_strict_policy(shared_gateway: ServiceProcess) -> None:
    async with httpx.AsyncClient(base_url=shared_gateway.facts["http"], trust_env=False) as http:
        page = await http.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]*src=)", page.text), "inline code or style"

        paths = set(re.findall(r'(?:src|href)="([^"]+)"', page.text))
        scripts = [await http.get(f"/{path}") for path in paths if path.endswith(".js")]
        paths |= {f"console/{name}" for script in scripts for name in re.findall(r'from "\./([^"]+)"', script.text)}
        assert {"console/console.css", "console/console.js", "console/call.js", "console/icon.svg"} <= paths
        for path in paths:
            file = await http.get(f"/{path}")
            assert file.status_code == 200, path
            assert file.headers["x-content-type-options"] == "nosniff"
            assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", file.text), f"{path} refers to another host"
        assert (await http.get("/console/../config.toml")).status_code == 404
        assert (await http.get("/console/nothing.js")).json() == {"error": "not found"}
