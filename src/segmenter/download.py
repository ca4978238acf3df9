"""Fetches a file: resumed where it broke off, checked by hash, at its place whole or not at all.

A server may send elsewhere, but only REDIRECTIONS times and never from https to what is not: there, anybody on the way
could answer. No file may have more than LARGEST bytes, whether it says so or not.
"""

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from segmenter.progress import Progress

TIMEOUT = 30.0  # seconds without a byte
TRIES = 3  # in a row that bring nothing, once there was something
PAUSE = 1.0  # seconds before the second of them
CHUNK = 2**18
REDIRECTIONS = 5
LARGEST = 2**33  # bytes; the largest archive and model that are known here have 2 GB
PASSING = {408, 425, 429, 500, 502, 503, 504}  # answers that may be another one later


class Failed(Exception):
    """What a download failed from, as a clause."""


class _Disk(Exception):
    """An error of the disk, kept apart from those of the network, which are OSErrors too."""


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Follows a server's word where that is safe."""

    def redirect_request(self, request, answer, code, message, headers, address):
        """The next request, or Failed."""
        before, after = (urlsplit(place).scheme.lower() for place in (request.full_url, address))
        if after not in ("http", "https") or (before == "https" and after != "https"):
            raise Failed(f"{request.full_url} leads to {address}, which is not https, and was not followed")
        new = super().redirect_request(request, answer, code, message, headers, address)
        if new is not None:
            new.followed = getattr(request, "followed", 0) + 1
            if new.followed > REDIRECTIONS:
                raise Failed(f"the server leads on and on, at last to {address}, and was not followed any further")
        return new


def fetch(address: str, path: Path, known: str = "", algorithm: str = "sha256") -> str:
    """Brings a file to `path` and returns its hash; `known` is what that begins with, as far as it is published.

    What has come before it broke off is kept beside the place, as NAME.part, and the next call goes on from it.

    Raises:
        Failed: it could not be downloaded, is too large, or has another hash.
        OSError: it cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("ab") as file:
            _receive_all(address, file)
    except Failed:
        if not part.stat().st_size:
            part.unlink()
        raise
    found = digest(part, algorithm)
    if not found.startswith(known):
        part.unlink()
        text = f"{address} came with the {algorithm} {found[:8]}..., not {known[:8]}... as published, and was removed"
        raise Failed(text)
    os.replace(part, path)
    return found


def digest(path: Path, algorithm: str = "sha256") -> str:
    """The hash of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _receive_all(address: str, file: BinaryIO) -> None:
    """Goes on with a file to its end, over as many connections as break off."""
    barren, begun = 0, False
    with Progress(desc=Path(address).name, unit="B", unit_scale=True, leave=False) as bar:
        while True:
            before = file.seek(0, os.SEEK_END)
            try:
                if _receive(address, file, bar):
                    bar.leave = True
                    return
                reason = "the connection broke off"
            except _Disk as error:
                raise error.args[0] from None
            except (OSError, http.client.HTTPException) as error:
                reason = _reason(address, error)
            have = file.seek(0, os.SEEK_END)
            barren = 0 if have > before else barren + 1
            begun = begun or before > 0 or have > 0
            # A host that never sent a byte is not asked twice.
            if barren >= (TRIES if begun else 1):
                kept = f"; {have / 1e6:.1f} MB are there, and the next try goes on from them" if have else ""
                raise Failed(f"{address} could not be downloaded ({reason}{kept})")
            time.sleep(PAUSE * barren)


def _receive(address: str, file: BinaryIO, bar: Progress) -> bool:
    """Appends what one connection brings; whether the file is whole then.

    Raises:
        Failed: the server says that there is no such file, or not for us.
        OSError, HTTPException: the network failed.
        _Disk: the file cannot be written.
    """
    have = file.seek(0, os.SEEK_END)
    headers = {"User-Agent": "vit-segmenter"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        opener = urllib.request.build_opener(_Redirections)
        answer = opener.open(urllib.request.Request(address, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            if error.headers.get("Content-Range") == f"bytes */{have}":  # it was all there
                return True
            file.truncate(0)
            return False
        if error.code in PASSING:
            raise
        raise Failed(f"{address} is gone: the server answers {error.code} {error.reason}") from error
    with answer:
        if answer.headers.get_content_type() == "text/html":
            raise Failed(f"{address} is gone: the server answers with a web page")
        if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
            if not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                file.truncate(0)  # of another part than was asked for
                return False
        else:  # the server begins anew
            file.truncate(0)
            have = 0
        length = answer.headers.get("Content-Length", "")
        bar.total = have + int(length) if length.isdigit() else None
        bar.n = have
        if (bar.total or 0) > LARGEST:
            raise _too_large(address, file, bar.total)
        while content := answer.read(CHUNK):
            if bar.n + len(content) > LARGEST:
                raise _too_large(address, file, bar.n + len(content))
            try:
                file.write(content)
            except OSError as error:
                raise _Disk(error) from error
            bar.update(len(content))
        return bar.total is None or bar.n >= bar.total


def _too_large(address: str, file: BinaryIO, size: int) -> Failed:
    file.truncate(0)
    return Failed(f"{address} has {size:.3g} bytes or more; nothing that is fetched here has more than {LARGEST:.3g}")


def _reason(address: str, error: Exception) -> str:
    """Why a connection failed, in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    connecting = isinstance(error, urllib.error.URLError)
    cause = error.reason if connecting else error
    if isinstance(cause, TimeoutError):
        return f"{urlsplit(address).netloc} has not answered for {TIMEOUT:g} s"
    if connecting:
        return f"{urlsplit(address).netloc} cannot be reached: {getattr(cause, 'strerror', None) or cause}"
    return f"the connection broke off: {error}"
