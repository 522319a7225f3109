"""Opens addresses of object stores, such as `s3://BUCKET/FOLDER`, through fsspec, with errors of one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trimtab.base.errors import InputError, MissingError, PackageError, RemoteError, TrimtabError


def open_store_files(address: str, *, purpose: str, field: str) -> tuple[Any, str]:
    """Return fsspec's file system for an address, and the address's path in it.

    `purpose`, `field`: words for errors: what the store is for, and the option that names it. Raises PackageError if
    fsspec's package for such addresses is not installed, InputError if the address cannot be parsed.
    """
    with store_errors(address):
        import fsspec

        try:
            files, root = fsspec.core.url_to_fs(address)
        except ImportError as error:  # says which package opens such an address
            name = error.name or f"for {address.partition('://')[0]}:// addresses of fsspec"
            raise PackageError(name, None, purpose) from None
        except ValueError as error:
            remedy = "name a folder, or an address such as s3://BUCKET/FOLDER"
            raise InputError(f"no {purpose.removeprefix('this ')} ({error})", remedy, field=field) from None
    return files, root


@contextmanager
def store_errors(address: str) -> Iterator[None]:
    """Context manager: turns the errors of a store's client into RemoteError or MissingError, in one line; other
    OSErrors pass.
    """
    try:
        yield
    except (TrimtabError, ImportError):
        raise
    except FileNotFoundError as error:
        raise MissingError(f"{address}: {_line(error)}; is there such a bucket or folder?") from error
    except PermissionError as error:
        raise RemoteError(f"{address}: {_line(error)}; may you read and write there?") from error
    except OSError:
        raise
    except Exception as error:
        raise RemoteError(
            f"{address}: {type(error).__name__}: {_line(error)}; is the store there, and may you write to it?"
        ) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
