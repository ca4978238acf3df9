"""Proves that a server can send nobody astray: redirections, sizes and changed files, from a server that tries."""

import hashlib
import http.client
import pwd
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from segmenter import download, first_hashes
from segmenter.data.sets.archives import unpack
from segmenter.errors import UserError


class Astray(BaseHTTPRequestHandler):
    """Sends the body of `pages`, or to where they lead; without a length where the path says so."""

    def do_GET(self):
        self.server.asked.append(self.path)
        page = self.server.pages[self.path]
        if isinstance(page, str):
            self.send_response(302)
            self.send_header("Location", page)
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        if "unsaid" not in self.path:
            self.send_header("Content-Length", str(10**12 if "claimed" in self.path else len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[ThreadingHTTPServer]:
    """Answers https too, in plain text."""
    plain = lambda self, request: self.do_open(http.client.HTTPConnection, request)  # noqa: E731
    monkeypatch.setattr(urllib.request.HTTPSHandler, "https_open", plain)
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Astray) as found:
        found.daemon_threads, found.asked = True, []
        place = f"127.0.0.1:{found.server_port}"
        found.http, found.https = f"http://{place}", f"https://{place}"
        found.pages = {"/file": b"content", "/unsaid": b"x" * 5000, "/claimed": b"x" * 100}
        thread = threading.Thread(target=found.serve_forever, args=(0.01,))
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def failed(address: str, path: Path) -> str:
    with pytest.raises(download.Failed) as error:
        download.fetch(address, path)
    assert list(path.parent.iterdir()) == []
    return str(error.value)


def test_https_never_becomes_http(server, tmp_path):
    server.pages |= {"/down": f"{server.http}/file", "/around": f"{server.https}/down"}
    for path in ("/down", "/around"):
        text = failed(server.https + path, tmp_path / "file")
        assert text == f"{server.https}/down leads to {server.http}/file, which is not https, and was not followed"
    assert "/file" not in server.asked


@pytest.mark.parametrize("way", [("http", "http"), ("http", "https"), ("https", "https")])
def test_other_redirections_are_followed(server, tmp_path, way):
    before, after = (getattr(server, scheme) for scheme in way)
    server.pages["/moved"] = f"{after}/file"
    download.fetch(f"{before}/moved", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"content"


@pytest.mark.parametrize("address", ["ftp://127.0.0.1/file", "file:///etc/passwd", "gopher://127.0.0.1/"])
def test_nothing_but_http_is_followed(server, tmp_path, address):
    server.pages["/astray"] = address
    text = failed(f"{server.http}/astray", tmp_path / "file")
    assert "was not followed" in text or "is not allowed" in text  # Python refuses some itself
    assert address in text


def test_redirections_end(server, tmp_path):
    server.pages |= {f"/{i}": f"{server.http}/{i + 1}" for i in range(50)}
    assert "the server leads on and on" in failed(f"{server.http}/0", tmp_path / "file")
    assert len(server.asked) == download.REDIRECTIONS + 1


@pytest.mark.parametrize("path", ["/claimed", "/unsaid"])
def test_a_file_of_any_length_is_not_taken(server, tmp_path, monkeypatch, path):
    monkeypatch.setattr(download, "LARGEST", 1000)
    monkeypatch.setattr(download, "CHUNK", 100)
    assert "nothing that is fetched here has more than 1e+03" in failed(server.http + path, tmp_path / "file")


# ---- files that have no published checksum


def test_the_first_hash_is_what_later_files_must_have(tmp_path):
    address, one, two = "https://host/data.zip", "1" * 64, "2" * 64
    first_hashes.agree(address, tmp_path / "a" / "data.zip", one)
    first_hashes.agree(address, tmp_path / "b" / "data.zip", one)
    first_hashes.agree(f"{address}?other", tmp_path / "data.zip", two)
    with pytest.raises(UserError) as error:
        first_hashes.agree(address, tmp_path / "c" / "data.zip", two)
    note = first_hashes.note_of(address)
    assert str(error.value) == (
        f"{tmp_path / 'c' / 'data.zip'} has the sha256 22222222..., but what first came from {address} had 11111111..."
        f"; delete the file to fetch it again, or {note} if its publisher has changed it"
    )
    assert tmp_path not in note.parents  # whoever exchanges the file has not the note in his hands


def test_where_nothing_can_be_remembered_that_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv(first_hashes.STATE, str(tmp_path / "file"))
    (tmp_path / "file").write_text("mine")
    first_hashes.agree("https://host/data.zip", tmp_path / "data.zip", "1" * 64)
    monkeypatch.delenv(first_hashes.STATE)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", lambda _: (_ for _ in ()).throw(KeyError("no such user")))
    first_hashes.agree("https://host/data.zip", tmp_path / "data.zip", "1" * 64)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert f"data.zip is not remembered: could not write {tmp_path / 'file'}" in told[0]
    assert "data.zip is not remembered: there is no home folder here" in told[1]


def test_an_unpacked_file_of_equal_size_is_compared(tmp_path, caplog):
    import zipfile

    archive = tmp_path / "data.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("a.txt", b"right")
        packed.writestr("b.txt", b"right")
    folder = tmp_path / "data"
    unpack(archive, folder)
    (folder / "a.txt").write_bytes(b"wrong")
    before = (folder / "b.txt").stat().st_mtime_ns
    assert unpack(archive, folder) == 2
    assert (folder / "a.txt").read_bytes() == b"right"
    assert (folder / "b.txt").stat().st_mtime_ns == before
    assert f"1 files differ from those in {archive} and are written anew: {folder / 'a.txt'}" in caplog.text


def test_hashes_are_those_of_the_files(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    assert download.digest(tmp_path / "file") == hashlib.sha256(b"content").hexdigest()
