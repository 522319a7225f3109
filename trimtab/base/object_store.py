"""Opens addresses of object stores, such as `s3://BUCKET/FOLDER`, through fsspec, with errors of one line."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

from trimtab.base.errors import InputError, MissingError, PackageError, RemoteError, TrimtabError

CREDENTIALS = {  # variables of the environment that the clients of fsspec and of LanceDB read, by scheme
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
ADDRESSES = "s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or az://CONTAINER/FOLDER"
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
_HEADERS = ("RequestId:", "Attempted credentials:")  # with these begin many more lines of Azure's messages

for _name in ("gcsfs", "azure"):  # without a handler, their tracebacks appear beside the one line of the error
    logging.getLogger(_name).addHandler(logging.NullHandler())


def scheme_of(address: str) -> str:
    """Return the scheme of an address, such as `s3`."""
    return address.partition("://")[0]


def open_store_files(address: str, *, purpose: str, field: str) -> tuple[Any, str]:
    """Return fsspec's file system for an address, and the address's path in it.

    `purpose`, `field`: words for errors: what the store is for, and the option that names it. Raises PackageError if
    fsspec's package for such addresses is not installed, InputError if the address cannot be parsed, RemoteError if
    the client finds no credentials.
    """
    scheme = scheme_of(address)
    with store_errors(address):
        import fsspec

        try:
            files, root = fsspec.core.url_to_fs(address)
        except ImportError as error:
            name = _PACKAGES.get(scheme) or error.name or f"for {scheme}:// addresses of fsspec"
            raise PackageError(name, "cloud" if scheme in _PACKAGES else None, purpose) from None
        except ValueError as error:
            if scheme in CREDENTIALS:
                raise RemoteError(f"{address}: {_line(error)}; set {CREDENTIALS[scheme]}") from None
            remedy = "name a folder, or an address such as s3://BUCKET/FOLDER"
            raise InputError(f"no {purpose.removeprefix('this ')} ({error})", remedy, field=field) from None
    return files, root


@contextmanager
def store_errors(address: str) -> Iterator[None]:
    """Context manager: turns the errors of a store's client into one-line errors; those of a local disk pass."""
    try:
        yield
    except (TrimtabError, ImportError):
        raise
    except FileNotFoundError as error:
        raise MissingError(f"{address}: {_line(error)}; is there such a bucket or folder?") from error
    except Exception as error:
        # clients raise OSErrors too, such as aiohttp's of a class of their own, or gcsfs's without a number
        if isinstance(error, OSError) and error.errno is not None and type(error).__module__ == "builtins":
            raise
        key = CREDENTIALS.get(scheme_of(address))
        remedy = "is the store there, and may you read and write it" + (f" with {key}?" if key else "?")
        raise RemoteError(f"{address}: {type(error).__name__}: {_line(error)}; {remedy}") from error


def _line(error: Exception) -> str:
    lines = takewhile(lambda line: not line.startswith(_HEADERS), str(error).splitlines())
    return " ".join(" ".join(lines).split())[:200].rstrip(".!")
