"""Downloads: right by checksum, or not at all. Files come from a server of this test."""

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from metaloom.learners.errors import BadEnvironment
from metaloom.workers.data import DataError, fashion_mnist, open_source
from metaloom.workers.data.store import fetch

CONTENT = b"drawings"
RIGHT = hashlib.sha256(CONTENT).hexdigest()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and keeps silent."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "data.zip").write_bytes(CONTENT)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_right_file_is_kept_and_not_fetched_again(served: str, tmp_path: Path) -> None:
    path = fetch(f"{served}/data.zip", RIGHT, tmp_path / "kept")
    assert path.read_bytes() == CONTENT
    (tmp_path / "served" / "data.zip").unlink()
    assert fetch(f"{served}/data.zip", RIGHT, tmp_path / "kept") == path


def test_a_wrong_checksum_is_refused_and_nothing_kept(served: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"SHA-256 is {RIGHT}, and {'0' * 64} was expected"):
        fetch(f"{served}/data.zip", "0" * 64, tmp_path / "kept")
    assert [path.name for path in (tmp_path / "kept").iterdir()] in ([], ["data.zip.lock"])


def test_a_file_damaged_on_disk_is_fetched_again(served: str, tmp_path: Path) -> None:
    path = fetch(f"{served}/data.zip", RIGHT, tmp_path / "kept")
    path.write_bytes(b"damaged")
    assert fetch(f"{served}/data.zip", RIGHT, tmp_path / "kept").read_bytes() == CONTENT


def test_no_answer_is_an_environment_error(served: str, tmp_path: Path) -> None:
    with pytest.raises(BadEnvironment, match=r"absent.zip: cannot be downloaded .* give tasks.path"):
        fetch(f"{served}/absent.zip", RIGHT, tmp_path / "kept")


def test_a_source_whose_download_is_wrong_says_so(served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "served" / "train-images-idx3-ubyte.gz").write_bytes(b"not clothes")
    monkeypatch.setattr(fashion_mnist, "MIRROR", served)
    monkeypatch.setattr(fashion_mnist, "USUAL_PLACES", (tmp_path / "nowhere",))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.gz: the download's SHA-256"):
        open_source({"source": "fashion_mnist", "download": True}, seed=0, cache=tmp_path / "cache")
    with pytest.raises(DataError, match=r"or set tasks\.download: true"):
        open_source({"source": "fashion_mnist"}, seed=0, cache=tmp_path / "cache")
