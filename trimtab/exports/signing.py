"""Sign an exported folder and verify it, with the OpenSSF's model-signing library.

Library: `model_signing` (Apache-2.0). Keys are PEM files of an elliptic curve: `openssl ecparam -name prime256v1
-genkey -noout -out key.pem`, and `openssl ec -in key.pem -pubout -out public.pem`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trimtab.base.errors import InputError, PackageError
from trimtab.base.sanitize import one_line

SIGNATURE = "model.sig"
STATE = ".trimtab"
FEEDBACK_FILE = "feedback.db"  # the only file in STATE: feedback of users comes after signing
UNSIGNED = (SIGNATURE, STATE)


def sign_folder(folder: Path, private_key: Path) -> None:
    """Sign every file of a folder and write the signature into it.

    Raises InputError for a key that cannot be used, PackageError without the library.
    """
    library = _library()
    try:
        signer = library.signing.Config().use_elliptic_key_signer(private_key=private_key)
        signer.set_hashing_config(_hashing(library)).sign(folder, folder / SIGNATURE)
    except (ValueError, TypeError, OSError) as error:  # TypeError: a key with a password
        remedy = "name a private key of an elliptic curve, as a PEM file without a password"
        raise InputError(f"cannot sign: {one_line(error)}", remedy, file=private_key) from None


def verify_folder(folder: Path, public_key: Path) -> None:
    """Raise InputError unless the folder has a signature of the key's owner and every file is as signed, none added or
    removed.

    Only the feedback store may be there unsigned: no answer depends on it. Raises PackageError without the library.
    """
    library = _library()
    try:
        verifier = library.verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except (ValueError, OSError) as error:
        raise InputError(f"is no public key: {one_line(error)}", "name a PEM file", file=public_key) from None
    if not (folder / SIGNATURE).is_file():
        raise InputError(f"is not signed: it holds no {SIGNATURE}", "export it again with --sign KEY", file=folder)
    try:
        verifier.set_hashing_config(_hashing(library)).verify(folder, folder / SIGNATURE)
    except MemoryError:
        raise
    except Exception as error:  # the library raises errors of many types on a damaged or forged signature
        remedy = "get it again from its signer, and do not load this one"
        raise InputError(f"is not as {public_key} signed it: {one_line(error)}", remedy, file=folder) from error

    beside = (folder / STATE).iterdir() if (folder / STATE).is_dir() else iter((folder / STATE,))
    odd = next((path for path in beside if path.exists() and not _is_feedback_store(path)), None)
    if odd is not None:
        raise InputError("is not signed, but its folder is", "take it away", file=odd)


def _is_feedback_store(path: Path) -> bool:
    """True for the feedback store and the files that SQLite keeps beside it."""
    return path.is_file() and path.name.removeprefix(".").startswith(FEEDBACK_FILE)


def _hashing(library: Any) -> Any:
    return library.hashing.Config().set_ignored_paths(paths=UNSIGNED, ignore_git_paths=False)


def _library() -> Any:
    """Import the library when it is first needed."""
    try:
        import model_signing
    except ModuleNotFoundError as error:
        raise PackageError(error.name or "model_signing", "sign", "a signature") from None
    return model_signing
