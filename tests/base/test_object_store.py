"""Errors of clients of object stores, as users are told them."""

from __future__ import annotations

import errno
import sys
from importlib import import_module

import pytest

from trimtab.base.errors import MissingError, PackageError, RemoteError
from trimtab.base.object_store import open_store_files, store_errors

AZURE = """The specified container does not exist.
RequestId:58c4f941
Content: <?xml version="1.0"?><Error>
  <Code>ContainerNotFound</Code>"""


class ClientOSError(OSError):
    """An OSError of a client's own, with a number, as aiohttp has."""


@pytest.mark.parametrize(
    ("address", "raised", "kind", "words"),
    [
        ("gs://b/f", OSError("Forbidden: b/o\nno access"), RemoteError, "OSError: Forbidden: b/o no access; is"),
        ("gs://b/f", ClientOSError(errno.ECONNREFUSED, "no"), RemoteError, "with GOOGLE_APPLICATION_CREDENTIALS?"),
        ("az://c/f", ValueError("no"), RemoteError, "with AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY?"),
        ("az://c/f", RuntimeError(AZURE), RemoteError, "RuntimeError: The specified container does not exist; is"),
        (
            "s3://b/f",
            PermissionError("Access Denied"),
            RemoteError,
            "with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY?",
        ),
        ("s3://b/f", FileNotFoundError("b/f"), MissingError, "b/f; is there such a bucket or folder?"),
    ],
)
def test_an_error_of_a_client_is_one_line(address: str, raised: Exception, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as told, store_errors(address):
        raise raised
    assert str(told.value).startswith(f"{address}: ")
    assert words in str(told.value)
    assert "\n" not in str(told.value)


def test_an_error_of_the_disk_passes() -> None:
    full = OSError(errno.ENOSPC, "no space left on the disk")
    with pytest.raises(OSError) as told, store_errors("s3://b/f"):
        raise full
    assert told.value is full


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs"), ("az", "adlfs")])
def test_a_package_that_is_not_installed_is_named(scheme: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(import_module("fsspec.registry")._registry, scheme, raising=False)  # if it was imported before
    with pytest.raises(PackageError) as told:
        open_store_files(f"{scheme}://bucket/folder", purpose="a study's store", field="--store")
    assert (
        str(told.value) == f"a study's store needs the package {package}; install it with: pip install 'trimtab[cloud]'"
    )
