"""Proves that published models are fetched by name, whole, once and checked, from a server that misbehaves."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from tiny_models import noise, small_model

import segmenter
from segmenter import download as network
from segmenter.errors import UserError
from segmenter.model.segmenter import Segmenter
from segmenter.published import cache, catalogue, original
from segmenter.published.catalogue import PUBLISHED, File, Published

CLASSES = {"ADE20K": 150, "Pascal Context": 60, "Cityscapes": 19}
CONTENT = noise(2500).numpy().tobytes()  # 10,000 bytes
HASH = hashlib.sha256(CONTENT).hexdigest()


class Mishap(NamedTuple):
    """How an answer differs from what was asked for."""

    status: int = 200
    after: int | None = None
    """Bytes that are sent before the connection ends, or nothing more is sent."""
    silent: bool = False
    kind: str = "application/octet-stream"
    start: int | None = None
    """First byte that is sent where it is not the one that was asked for."""


class Host(ThreadingHTTPServer):
    """Serves `files`; the next answers suffer the `mishaps`."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {"model.bin": CONTENT}
        self.mishaps: list[Mishap] = []
        self.ranges = True
        self.asked: list[tuple[str, str | None]] = []
        self.over = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        host, name, wanted = self.server, self.path.strip("/"), self.headers["Range"]
        host.asked.append((name, wanted))
        mishap = host.mishaps.pop(0) if host.mishaps else Mishap()
        if mishap.status != 200 or name not in host.files:
            self.send_error(404 if mishap.status == 200 else mishap.status)
            return
        content, start = host.files[name], 0
        if wanted and host.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return
            start = start if mishap.start is None else mishap.start
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Type", mishap.kind)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = len(content) if mishap.after is None else start + mishap.after
        self.wfile.write(content[start:end])
        if mishap.silent:
            self.wfile.flush()
            host.over.wait(20)

    def log_message(self, *_):
        pass


@pytest.fixture
def host(tmp_path, monkeypatch) -> Iterator[Host]:
    """A server, a cache of its own, and no pause between tries."""
    monkeypatch.setenv(cache.CACHE, str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(network, "PAUSE", 0.0)
    monkeypatch.setattr(network, "CHUNK", 1000)
    monkeypatch.setattr(network, "TIMEOUT", 10.0)
    with Host() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


def row(host: Host | str, *files: File, name: str = "seg-tiny-mask-test", decoder: str = "linear") -> Published:
    """A line of the table whose files are at a host."""
    address = host if isinstance(host, str) else host.address
    rest = ("vit_tiny_patch16_384", decoder, "TEST", 64, 1.0, 2.0, 3)
    return Published(name, *rest, address, files or (File("model.bin", HASH[:8]),))


def refused(model: Published) -> str:
    """The one sentence that says why the model could not be downloaded."""
    with pytest.raises(UserError) as error:
        cache.fetch(model)
    assert "\n" not in str(error.value)
    return str(error.value)


def part_of(model: Published) -> Path:
    return cache.cache() / model.name / "model.bin.part"


# ---- by name


@pytest.fixture
def published(host, tmp_path, monkeypatch) -> Segmenter:
    """A model of the original's layout that is published as seg-tiny-mask-test."""
    model = small_model("mask_transformer", width=64, heads=1, norm_eps=1e-5)
    original.write(model, tmp_path / "files")
    files = ("variant.yml", "checkpoint.pth")
    host.files = {name: (tmp_path / "files" / name).read_bytes() for name in files}
    monkeypatch.setattr(catalogue, "PUBLISHED", (row(host, *map(File, files), decoder="mask_transformer"),))
    return model


@torch.inference_mode()
def test_a_name_is_fetched_once_and_needs_no_network_then(host, published, capfd):
    images = noise(1, 3, 50, 70)
    found = segmenter.load("seg-tiny-mask-test")
    assert torch.equal(found(images), published(images))
    assert host.asked == [("variant.yml", None), ("checkpoint.pth", None)]
    assert "checkpoint.pth: 100%" in capfd.readouterr().err
    folder = cache.cache() / "seg-tiny-mask-test"
    left = {path.name for path in folder.iterdir() if path.name != ".lock"}
    assert left == {"variant.yml", "variant.yml.sha256", "checkpoint.pth", "checkpoint.pth.sha256"}
    digest = hashlib.sha256((folder / "checkpoint.pth").read_bytes()).hexdigest()
    assert (folder / "checkpoint.pth.sha256").read_text() == f"{digest}  checkpoint.pth\n"
    host.shutdown()
    assert torch.equal(segmenter.load("seg-tiny-mask-test")(images), published(images))
    assert torch.equal(segmenter.load(Path("seg-tiny-mask-test"))(images), published(images))


def test_a_path_goes_before_a_name(host, published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small_model("linear").save("seg-tiny-mask-test")
    assert segmenter.load("seg-tiny-mask-test").recipe.decoder.name == "linear"
    assert host.asked == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [("seg-tiny-mask-ade20", "; perhaps seg-tiny-mask-ade20k"), ("runs/first", "that `segmenter models` lists")],
)
def test_an_unknown_name(name, hint):
    with pytest.raises(UserError) as error:
        segmenter.load(name)
    assert str(error.value).startswith(f"there is no model folder {name}; give a folder that `segmenter train` wrote, ")
    assert str(error.value).endswith(hint)


def test_the_cache_is_below_the_home_folder_unless_it_is_set(monkeypatch):
    monkeypatch.delenv(cache.CACHE, raising=False)
    assert cache.cache() == Path.home() / ".cache" / "segmenter"
    monkeypatch.setenv(cache.CACHE, "~/elsewhere")
    assert cache.cache() == Path.home() / "elsewhere"


# ---- what breaks off


def test_a_cut_connection_is_taken_up_again(host):
    host.mishaps = [Mishap(after=3000), Mishap(after=4500)]
    folder = cache.fetch(row(host))
    assert (folder / "model.bin").read_bytes() == CONTENT
    assert [wanted for _, wanted in host.asked] == [None, "bytes=3000-", "bytes=7500-"]


def test_a_server_that_knows_no_ranges_begins_anew(host):
    host.ranges = False
    host.mishaps = [Mishap(after=3000), Mishap(after=7000)]
    folder = cache.fetch(row(host))
    assert (folder / "model.bin").read_bytes() == CONTENT
    assert len(host.asked) == 3


def test_what_is_there_is_kept_and_the_next_command_goes_on(host):
    host.mishaps = [Mishap(after=4000), *[Mishap(after=0)] * network.TRIES]
    model = row(host)
    text = refused(model)
    assert f"{host.address}model.bin could not be downloaded (the connection broke off; 0.0 MB are there," in text
    assert part_of(model).read_bytes() == CONTENT[:4000]
    assert not (part_of(model).parent / "model.bin").exists()
    assert len(host.asked) == 1 + network.TRIES
    assert (cache.fetch(model) / "model.bin").read_bytes() == CONTENT
    assert host.asked[-1] == ("model.bin", "bytes=4000-")
    assert not part_of(model).exists()


def test_a_server_that_always_cuts_at_the_same_place_is_given_up(host):
    host.ranges = False
    host.mishaps = [Mishap(after=4000)] * 20
    assert "could not be downloaded (the connection broke off" in refused(row(host))
    assert len(host.asked) == 1 + network.TRIES


def test_a_part_that_is_all_there(host):
    model = row(host)
    part_of(model).parent.mkdir(parents=True)
    part_of(model).write_bytes(CONTENT)
    assert (cache.fetch(model) / "model.bin").read_bytes() == CONTENT
    assert len(host.asked) == 1


@pytest.mark.parametrize("mishap", [None, Mishap(start=0)])
def test_a_part_that_does_not_fit_is_fetched_anew(host, mishap):
    model = row(host)
    part_of(model).parent.mkdir(parents=True)
    part_of(model).write_bytes(CONTENT * 2 if mishap is None else CONTENT[:50])
    host.mishaps = [mishap] if mishap else []
    assert (cache.fetch(model) / "model.bin").read_bytes() == CONTENT
    assert host.asked[-1] == ("model.bin", None)


def test_a_server_that_falls_silent_in_between(host, monkeypatch):
    monkeypatch.setattr(network, "TIMEOUT", 0.3)
    host.mishaps = [Mishap(after=6000, silent=True)]
    assert (cache.fetch(row(host)) / "model.bin").read_bytes() == CONTENT
    assert host.asked[-1] == ("model.bin", "bytes=6000-")


def test_a_server_that_is_busy_in_between(host):
    host.mishaps = [Mishap(after=6000), Mishap(status=503)]
    assert (cache.fetch(row(host)) / "model.bin").read_bytes() == CONTENT


def test_two_processes_at_once_fetch_it_once(host):
    pytest.importorskip("fcntl")
    model, found = row(host), []
    host.mishaps = [Mishap(after=5000)]
    threads = [threading.Thread(target=lambda: found.append(cache.fetch(model))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(host.asked) == 2
    assert (found[0] / "model.bin").read_bytes() == CONTENT


# ---- what could not be downloaded


def test_a_file_that_is_gone(host, monkeypatch):
    model = row(host, File("variant.yml"), File("checkpoint.pth"), decoder="mask_transformer")
    elsewhere = "http://example.org/"
    others = (
        row(elsewhere, name="seg-tiny-linear-test-b"),
        row(elsewhere, name="seg-tiny-mask-test-b", decoder="mask_transformer"),
    )
    monkeypatch.setattr(catalogue, "PUBLISHED", (model, *others))
    folder = cache.cache() / model.name
    assert refused(model) == (
        f"seg-tiny-mask-test: {host.address}variant.yml is gone: the server answers 404 Not Found; take "
        "seg-tiny-mask-test-b (from example.org) or seg-tiny-linear-test-b (from example.org) instead, or put "
        f"variant.yml and checkpoint.pth into {folder} yourself"
    )
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize(
    ("mishap", "text"),
    [
        (Mishap(status=403), "is gone: the server answers 403 Forbidden"),
        (Mishap(status=503), "could not be downloaded (the server answers 503 Service Unavailable)"),
        (Mishap(kind="text/html; charset=utf-8"), "is gone: the server answers with a web page"),
    ],
)
def test_another_answer(host, mishap, text):
    host.mishaps = [mishap]
    model = row(host)
    assert f"{host.address}model.bin {text}; put model.bin into {cache.cache() / model.name} yourself" in refused(model)
    assert len(host.asked) == 1


def test_a_server_that_does_not_answer(host, monkeypatch):
    monkeypatch.setattr(network, "TIMEOUT", 0.3)
    host.mishaps = [Mishap(after=0, silent=True)]
    assert f"127.0.0.1:{host.server_port} has not answered for 0.3 s" in refused(row(host))


def test_a_host_that_is_gone(host):
    host.shutdown()
    host.server_close()
    text = refused(row(host))
    assert f"127.0.0.1:{host.server_port} cannot be reached: Connection refused" in text
    assert text.endswith(f"put model.bin into {cache.cache() / 'seg-tiny-mask-test'} yourself")


def test_a_file_put_there_by_hand_needs_no_host(host):
    host.shutdown()
    host.server_close()
    folder = cache.cache() / "seg-tiny-mask-test"
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(CONTENT)
    assert cache.fetch(row(host)) == folder
    assert (folder / "model.bin.sha256").read_text() == f"{HASH}  model.bin\n"


def test_a_cache_that_cannot_be_written_to(host, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(cache.CACHE, str(tmp_path / "file"))
    text = refused(row(host))
    assert f"could not write {tmp_path / 'file' / 'seg-tiny-mask-test'} (" in text
    assert text.endswith("make room there, or set SEGMENTER_CACHE to another folder")


# ---- what is not what it should be


def test_a_file_with_another_hash_is_removed(host):
    model = row(host, File("model.bin", "0123abcd"))
    assert (
        f"model.bin came with the sha256 {HASH[:8]}..., not 0123abcd... as published, and was removed; put "
        in refused(model)
    )
    assert {path.name for path in part_of(model).parent.iterdir()} == {".lock"}


def test_a_file_put_there_by_hand_with_another_hash(host):
    model = row(host)
    path = part_of(model).with_name("model.bin")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something else")
    assert refused(model).startswith(f"{path} has the sha256 ")
    assert refused(model).endswith(f"not {HASH[:8]}... as published; delete it")
    assert host.asked == []


def test_a_file_that_changed_in_the_cache(host):
    model = row(host, File("model.bin"))
    path = cache.fetch(model) / "model.bin"
    path.write_bytes(CONTENT[:-1])
    text = refused(model)
    assert text.startswith(f"{path} has changed since its download: its sha256 is ")
    assert text.endswith(f"not {HASH[:8]}... as in {path}.sha256; delete both to download it again")


# ---- the table


def test_every_line_of_the_table_is_complete():
    assert len({model.name for model in PUBLISHED}) == len(PUBLISHED) == 9 + 5
    assert len({model.folder for model in PUBLISHED}) == len(PUBLISHED)
    for model in PUBLISHED:
        assert all(model)
        assert model.folder.startswith("https://")
        assert model.folder.endswith("/")
        assert model.data in CLASSES
        assert 30 < model.miou < model.miou_multiscale < 90
        assert model.data.lower().replace(" ", "-") in model.name
        assert model.size in model.name
        assert ("mask" in model.name) == (model.decoder == "mask_transformer")
        for file in model.files:
            assert "/" not in file.name
            if file.name not in ("variant.yml", "checkpoint.pth"):  # OpenMMLab's names end with the hash
                assert file.name.endswith(f"-{file.sha256}.pth")
                assert len(bytes.fromhex(file.sha256)) == 4
    assert catalogue.find("seg-tiny-mask-ade20k").miou == 38.1
    assert catalogue.find("nothing") is None


@pytest.mark.parametrize("model", PUBLISHED, ids=lambda model: model.name)
def test_parameters_are_those_of_our_network(model):
    with torch.device("meta"):
        network = segmenter.create(model.encoder, model.decoder, CLASSES[model.data], model.crop)
    assert sum(parameter.numel() for parameter in network.parameters()) == model.parameters


def test_other_sources_have_the_same_size_and_data():
    def others(name: str) -> list[str]:
        return [model.name for model in catalogue.alternatives(catalogue.find(name))]

    assert others("seg-tiny-mask-ade20k") == ["seg-tiny-mask-ade20k-openmmlab"]
    assert others("seg-small-mask-ade20k") == ["seg-small-mask-ade20k-openmmlab", "seg-small-linear-ade20k-openmmlab"]
    assert others("seg-base-linear-patch8-ade20k") == ["seg-base-mask-ade20k-openmmlab"]
    assert others("seg-large-mask-ade20k-openmmlab") == ["seg-large-mask-ade20k"]
    assert others("seg-large-mask-cityscapes") == []
