import pytest


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """One server for all tests of this folder, with a home and a temporary folder of its own."""
    from .server import Server

    folder = tmp_path_factory.mktemp("label")
    for name in ("home", "temporary"):
        (folder / name).mkdir()
    server = Server(folder, HOME=str(folder / "home"), TMPDIR=str(folder / "temporary"))
    try:
        server.info = server.wait()
        yield server
    finally:
        server.stop()
