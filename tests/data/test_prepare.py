"""Proves that data sets are fetched, checked, unpacked and nowhere else, from a server that breaks off, and Cityscapes
from the user's own zip files."""

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from segmenter import config, download
from segmenter.cli.data import DataSetName
from segmenter.data.layouts import open_labels
from segmenter.data.sets.archives import ALWAYS, GROWTH, unpack
from segmenter.data.sets.mat_files import read_array
from segmenter.data.sets.named_classes import named_classes
from segmenter.data.sets.pascal_context import IDS
from segmenter.data.sets.prepare import SOURCES, Archive, Source, prepare
from segmenter.errors import UserError


def picture(*values: int) -> bytes:
    """A PNG of one row of grey values."""
    stored = io.BytesIO()
    Image.fromarray(np.array([values], np.uint8)).save(stored, "PNG")
    return stored.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stored.getvalue()


def tarred(files: dict[str, bytes], mode: str = "w") -> bytes:
    stored = io.BytesIO()
    with tarfile.open(fileobj=stored, mode=mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stored.getvalue()


class Host(ThreadingHTTPServer):
    """Serves `files` with ranges; the first answer ends after `cut` bytes."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.cut: int | None = None
        self.asked: list[tuple[str, str | None]] = []

    def archive(self, name: str, content: bytes, **options) -> Archive:
        """Offers a file, with its right checksum."""
        self.files[name] = content
        checksum = f"md5:{hashlib.md5(content).hexdigest()}"
        options = {"checksum": checksum} | options
        return Archive(f"http://127.0.0.1:{self.server_port}/{name}", name, **options)


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        name, wanted = self.path.strip("/"), self.headers["Range"]
        self.server.asked.append((name, wanted))
        content = self.server.files.get(name)
        if content is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : self.server.cut])
        self.server.cut = None

    def log_message(self, *_):
        pass


@pytest.fixture
def host(monkeypatch) -> Iterator[Host]:
    monkeypatch.setattr(download, "PAUSE", 0.0)
    with Host() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def ade20k(host) -> Source:
    """ADE20K with one image a split, in archives arranged as the published ones."""
    top = "ADEChallengeData2016"
    files = {f"{top}/objectInfo150.txt": b"Idx\n"}
    for folder, name in (("training", "ADE_train_00000001"), ("validation", "ADE_val_00000001")):
        files[f"{top}/images/{folder}/{name}.jpg"] = picture(1, 2, 3)
        files[f"{top}/annotations/{folder}/{name}.png"] = picture(0, 1, 150)
    test = {"release_test/testing/ADE_test_00000001.jpg": picture(1, 2, 3)}
    archives = (host.archive("ADEChallengeData2016.zip", zipped(files)), host.archive("release_test.zip", zipped(test)))
    return replace(SOURCES["ade20k"], counts={"train": 1, "val": 1, "test": 1}, archives=archives)


def refused(*arguments) -> str:
    with pytest.raises(UserError) as error:
        prepare(*arguments)
    return str(error.value)


# ---- fetching


def test_ade20k(host, ade20k, tmp_path):
    root = tmp_path / "data/ade20k"
    text = prepare("ade20k", root, ade20k)
    assert text == f"{root} (ADE20K): train 1, val 1, test 1 images; 150 classes of the layout"
    data = open_labels(config.Data(root=str(root)))
    assert data.split("val")[0].target().tolist() == [[255, 0, 149]]
    assert data.split("test")[0].target_path is None
    assert not list(root.rglob("*.part"))

    asked = len(host.asked)
    for archive in ade20k.archives:
        (root / archive.file).unlink()
    assert prepare("ade20k", root, ade20k) == text  # nothing is fetched again
    assert len(host.asked) == asked == 2


def test_a_broken_download_goes_on(host, ade20k, tmp_path):
    host.cut = 100
    prepare("ade20k", tmp_path, ade20k)
    assert host.asked[:2] == [("ADEChallengeData2016.zip", None), ("ADEChallengeData2016.zip", "bytes=100-")]


def test_an_archive_that_is_there_already_is_checked_and_taken(host, ade20k, tmp_path):
    path = tmp_path / "ADEChallengeData2016.zip"
    path.write_bytes(host.files.pop(path.name))
    prepare("ade20k", tmp_path, ade20k)
    assert host.asked == [("release_test.zip", None)]
    (tmp_path / "ADEChallengeData2016/objectInfo150.txt").unlink()
    (tmp_path / "ADEChallengeData2016/images/training/ADE_train_00000001.jpg").unlink()
    path.write_bytes(b"something else")
    text = refused("ade20k", tmp_path, ade20k)
    assert text.startswith(f"{path} has the md5 {hashlib.md5(b'something else').hexdigest()[:8]}..., not ")
    assert text.endswith("... as published; delete it and start again")


def test_an_archive_without_a_published_checksum_must_stay_what_it_was(host, ade20k, tmp_path):
    """Another one of equal size, from the server or in the folder, is not taken, into whatever folder it comes."""
    one, two = ade20k.archives
    source = replace(ade20k, archives=(replace(one, checksum=""), two))
    prepare("ade20k", tmp_path / "first", source)
    content = host.files[one.file]
    other = content.replace(b"Idx", b"Odx")
    assert len(other) == len(content)
    host.files[one.file] = other
    assert "but what first came from" in refused("ade20k", tmp_path / "second", source)
    assert [path.name for path in (tmp_path / "second").iterdir()] == [one.file]  # nothing was unpacked
    (tmp_path / "third").mkdir()
    (tmp_path / "third" / one.file).write_bytes(other)
    assert "delete the file to fetch it again" in refused("ade20k", tmp_path / "third", source)


def test_an_archive_with_another_checksum_is_removed(host, ade20k, tmp_path):
    host.files["ADEChallengeData2016.zip"] += b"x"
    text = refused("ade20k", tmp_path, ade20k)
    assert "ADEChallengeData2016.zip came with the md5 " in text
    assert text.endswith(
        f"as published, and was removed; start again later, or put ADEChallengeData2016.zip into {tmp_path} yourself"
    )
    assert not list(tmp_path.iterdir())


def test_a_host_without_the_archive(host, ade20k, tmp_path):
    host.files.clear()
    assert refused("ade20k", tmp_path, ade20k) == (
        f"ADE20K scene parsing: {ade20k.archives[0].address} is gone: the server answers 404 Not Found; start again "
        f"later, or put ADEChallengeData2016.zip into {tmp_path} yourself"
    )


def test_an_interrupted_unpacking_goes_on(ade20k, tmp_path):
    prepare("ade20k", tmp_path, ade20k)
    images = tmp_path / "ADEChallengeData2016/images"
    (images / "training/ADE_train_00000001.jpg").write_bytes(b"cut off")
    kept = (images / "validation/ADE_val_00000001.jpg").stat().st_mtime_ns
    assert unpack(tmp_path / "ADEChallengeData2016.zip", tmp_path) == 5
    assert (images / "training/ADE_train_00000001.jpg").read_bytes() == picture(1, 2, 3)
    assert (images / "validation/ADE_val_00000001.jpg").stat().st_mtime_ns == kept


def test_a_data_set_that_is_not_whole_is_said_to_be(ade20k, tmp_path):
    text = refused("ade20k", tmp_path, replace(ade20k, counts=SOURCES["ade20k"].counts))
    assert text.endswith(
        "train 1, val 1, test 1 images; 150 classes of the layout; but ADE20K scene parsing has train 20210, val 2000, "
        "test 3352 images: delete the archives and start again"
    )


def test_a_folder_that_cannot_be_written_to(ade20k, tmp_path):
    (tmp_path / "file").touch()
    folder = tmp_path / "file/data"
    text = refused("ade20k", folder, ade20k)
    assert text.startswith(f"could not write {folder}/ADEChallengeData2016.zip (Not a directory); make room there")


def test_voc(host, tmp_path):
    top = "VOCdevkit/VOC2012"
    files = {f"{top}/ImageSets/Segmentation/{split}.txt": f"2007_00000{i}\n".encode() for i, split in
             enumerate(("train", "val"))}  # fmt: skip
    for i in range(2):
        files[f"{top}/JPEGImages/2007_00000{i}.jpg"] = picture(1, 2, 3)
        files[f"{top}/SegmentationClass/2007_00000{i}.png"] = picture(0, 20, 255)
    archive = host.archive("VOCtrainval_11-May-2012.tar", tarred(files))
    source = replace(SOURCES["voc"], counts={"train": 1, "val": 1}, archives=(archive,))
    assert "(Pascal VOC): train 1, val 1 images; 21 classes" in prepare("voc", tmp_path, source)


def test_camvid_comes_out_of_its_repository(host, tmp_path):
    published = SOURCES["camvid"].archives[0]
    files = {f"{published.below.partition('/')[0]}/README.md": b"all the rest"}
    for split in ("train", "val", "test"):
        files[f"{published.below}/{split}/0001TP.png"] = picture(1, 2, 3)
        files[f"{published.below}/{split}annot/0001TP.png"] = picture(0, 10, 11)
        files[f"{published.below}/{split}.txt"] = f"/SegNet/CamVid/{split}/0001TP.png /SegNet/x\n".encode()
    archive = host.archive(published.file, zipped(files), below=published.below, checksum=published.checksum)
    source = replace(SOURCES["camvid"], counts={"train": 1, "val": 1, "test": 1}, archives=(archive,))
    prepare("camvid", tmp_path, source)
    assert not list(tmp_path.rglob("README.md"))
    assert open_labels(config.Data(root=str(tmp_path))).split("val")[0].target().tolist() == [[0, 10, 255]]


# ---- Pascal Context


def mat_file(array: np.ndarray, **options) -> bytes:
    stored = io.BytesIO()
    pytest.importorskip("scipy.io").savemat(stored, {"other": np.ones(3), "LabelMap": array}, **options)
    return stored.getvalue()


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float64])
def test_arrays_of_matlab_files(tmp_path, dtype, compressed):
    array = np.random.default_rng(0).integers(0, 250, (7, 5)).astype(dtype)
    path = tmp_path / "a.mat"
    path.write_bytes(mat_file(array, do_compression=compressed))
    assert read_array(path, "LabelMap").tolist() == array.tolist()
    with pytest.raises(UserError, match=r"a\.mat holds no array 'Labels'; unpack it again"):
        read_array(path, "Labels")
    for content in (path.read_bytes()[:180], b"", b"x" * 300):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"a\.mat (is broken or not a MATLAB file|holds no array)"):
            read_array(path, "LabelMap")


def test_pascal_context(host, tmp_path):
    home, published = "VOCdevkit/VOC2010", SOURCES["pascal_context"].archives
    names = {"train": "2008_000002", "val": "2008_000003"}
    images = {f"{home}/JPEGImages/{name}.jpg": picture(1, 2, 3, 4) for name in names.values()}
    images |= {f"{home}/ImageSets/Main/{split}.txt": f"{name}\n".encode() for split, name in names.items()}
    annotations = {f"trainval/{name}.mat": mat_file(np.array([[1, 2, 9, 458]], np.uint16)) for name in names.values()}
    archives = (
        host.archive(published[0].file, tarred(images)),
        host.archive(
            published[1].file, tarred(annotations, "w:gz"), checksum="", into=published[1].into,
            below=published[1].below,
        ),
    )  # fmt: skip
    source = replace(SOURCES["pascal_context"], counts={"train": 1, "val": 1}, archives=archives)
    assert "(Pascal Context with background): train 1, val 1 images" in prepare("pascal_context", tmp_path, source)
    data = open_labels(config.Data(root=str(tmp_path)))
    labels = data.split("train")[0].target()[0].tolist()
    assert [data.classes.names[label] for label in labels] == ["background", "aeroplane", "bag", "wood"]
    without = open_labels(config.Data(root=str(tmp_path), layout="pascal_context_59"))
    assert without.split("val")[0].target()[0].tolist() == [255, 0, 1, 58]


def test_ids_of_pascal_context_are_in_the_order_of_its_classes():
    assert len(IDS) == len(named_classes("pascal_context_59"))
    assert sorted(set(IDS)) == list(IDS)


# ---- Cityscapes


def test_cityscapes_without_its_zip_files_says_what_to_put_where(tmp_path):
    assert refused("cityscapes", tmp_path, SOURCES["cityscapes"]) == (
        f"leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip must be in {tmp_path}, and only you may download "
        "them: register at https://www.cityscapes-dataset.com/downloads/, put them there as they are, and start again"
    )
    (tmp_path / "leftImg8bit_trainvaltest.zip").write_bytes(zipped({"README": b""}))
    text = refused("cityscapes", tmp_path, SOURCES["cityscapes"])
    assert text.startswith(f"gtFine_trainvaltest.zip must be in {tmp_path}, and")


def test_cityscapes_from_its_zip_files(tmp_path):
    places = {"train": "aachen", "val": "lindau", "test": "berlin"}
    names = {f"{split}/{city}/{city}_000000_000019" for split, city in places.items()}
    images = {f"leftImg8bit/{name}_leftImg8bit.png": picture(1, 2, 3) for name in names}
    masks = {f"gtFine/{name}_gtFine_labelIds.png": picture(0, 7, 33) for name in names}
    for kind, files in (("leftImg8bit", images), ("gtFine", masks)):
        (tmp_path / f"{kind}_trainvaltest.zip").write_bytes(zipped(files | {"README": kind.encode()}))
    source = replace(SOURCES["cityscapes"], counts={"train": 1, "val": 1, "test": 1})
    assert "(Cityscapes): train 1, val 1, test 1 images; 19 classes" in prepare("cityscapes", tmp_path, source)
    data = open_labels(config.Data(root=str(tmp_path)))
    assert data.split("train")[0].target().tolist() == [[255, 0, 18]]


# ---- archives that are not what they should be


def outside(tmp_path: Path, name: str, content: bytes) -> str:
    """What is said about an archive, of which nothing was unpacked."""
    archive, folder = tmp_path / name, tmp_path / "in/here"
    archive.write_bytes(content)
    with pytest.raises(UserError) as error:
        unpack(archive, folder)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {name}
    return str(error.value)


@pytest.mark.parametrize("bad", ["../out.txt", "a/../../out.txt", "/out.txt", "..\\out.txt", "C:\\out.txt", "//a/out"])
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_paths_that_lead_outside(tmp_path, pack, bad):
    name = "data.zip" if pack is zipped else "data.tar"
    text = outside(tmp_path, name, pack({"good.txt": b"good", bad: b"bad"}))
    assert text == (
        f"{tmp_path / name} holds {bad!r}, which leads outside the folder; nothing was unpacked: get the archive from "
        "its publisher"
    )


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar(tmp_path, kind):
    stored = io.BytesIO()
    with tarfile.open(fileobj=stored, mode="w") as archive:
        info = tarfile.TarInfo("images")
        info.type, info.linkname = kind, "/etc"
        archive.addfile(info)
    text = outside(tmp_path, "data.tar", stored.getvalue())
    assert "holds 'images', which is a link or a device; nothing was unpacked" in text


def test_links_in_a_zip(tmp_path):
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w") as archive:
        info = zipfile.ZipInfo("images")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc")
    assert "holds 'images', which is a link or a device" in outside(tmp_path, "data.zip", stored.getvalue())


def test_archives_that_unpack_to_far_too_much(tmp_path):
    zeros = bytes(ALWAYS + 1)
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("zeros", zeros)
    assert len(stored.getvalue()) * GROWTH < ALWAYS
    for name, content in (("data.zip", stored.getvalue()), ("data.tar.gz", tarred({"zeros": zeros}, "w:gz"))):
        text = outside(tmp_path, name, content)
        assert "would unpack to 64 MB or more, which no data set does; nothing was unpacked" in text
        (tmp_path / name).unlink()


def test_a_zip_that_declares_less_than_it_holds_gives_no_more(tmp_path):
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10**6))
    content = stored.getvalue()
    assert content.count((10**6).to_bytes(4, "little")) == 2  # in the file's own header and in the directory
    text = outside(tmp_path, "data.zip", content.replace((10**6).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    assert "data.zip is broken or incomplete (Bad CRC-32 for file 'zeros'); delete it and start again" in text


@pytest.mark.parametrize("name", ["data.zip", "data.tar", "data.tar.gz"])
def test_archives_that_are_cut_off(tmp_path, name):
    noise = np.random.default_rng(0).bytes(50_000)
    pack = {"data.zip": zipped, "data.tar": tarred}.get(name, lambda files: tarred(files, "w:gz"))
    text = outside(tmp_path, name, pack({"noise": noise})[:30_000])
    assert text.startswith(f"{tmp_path / name} is broken or incomplete (")


def test_no_room(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 2**20})())
    text = outside(tmp_path, "data.zip", zipped({"a": bytes(2**21)}))
    assert text.endswith("data.zip unpacks to 2 MB, but " f"{tmp_path}/in/here has 1 MB left; make room there, or name "
                         "another folder")  # fmt: skip


# ---- the command


def test_the_command_says_the_terms_and_what_is_there(ade20k, tmp_path, command, monkeypatch):
    monkeypatch.setitem(SOURCES, "ade20k", ade20k)
    told = command("prepare", "ade20k", tmp_path)
    assert told.status == 0
    assert told.out == f"{tmp_path} (ADE20K): train 1, val 1, test 1 images; 150 classes of the layout\n"
    assert f"ADE20K scene parsing: {ade20k.terms}\n" in told.err
    told = command("prepare", "cityscapes", tmp_path / "none")
    assert told.status == 1
    assert told.err.splitlines()[-1].startswith("segmenter: leftImg8bit_trainvaltest.zip and gtFine")


def test_the_command_knows_all_of_them():
    assert set(get_args(DataSetName)) == set(SOURCES)
    for name, source in SOURCES.items():
        assert source.terms
        assert bool(source.archives) == (name != "cityscapes")
        for archive in source.archives:
            assert archive.checksum.partition(":")[0] in ("", "md5", "sha1")
