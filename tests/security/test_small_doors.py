"""Small doors: what clients have us fetch, what we leave on the disk, what processes are told."""

from collections.abc import Iterator

import pytest

from tests.ensemble import Exchange, running


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    """`dialbus run`, as strict as it comes."""
    with running(tmp_path_factory.mktemp("strict")) as exchange:
        yield exchange


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "168.63.129.16", "192.0.0.192", "[::ffff:168.63.129.16]", "[64:ff9b::a83f:8110]"]
)
async def test_a_client_cannot_have_the_metadata_of_a_cloud_fetched(ensemble: Exchange, host: str) -> None:
    async with ensemble.client(path="/call") as client:
        await client.send("invite", option={})
        await client.expect("answer")
        await client.send("play", url=f"http://{host}/latest/meta-data/", playId="m")
        error = await client.expect("error")

    assert "may not be fetched from" in error["error"]
