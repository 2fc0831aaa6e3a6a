"""What may be shown of an address that logs in, and of an error that quotes it."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

N_CHARACTERS = 200
"""Of an error that people are told."""


def without_password(uri: str) -> str:
    """A tracking URI as it may be shown.

    >>> without_password("https://ml:secret@flow.shop:5000/x"), without_password("sqlite:////runs/mlflow.db")
    ('https://flow.shop:5000/x', 'sqlite:////runs/mlflow.db')
    """
    try:
        parts = urlsplit(uri)
    except ValueError:
        return uri.rpartition("@")[2]
    if "@" not in parts.netloc:
        return uri
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def told_of(error: BaseException, uri: str) -> str:
    """The first words of an error, without what logs in at a tracking URI.

    >>> told_of(OSError("no way to http://ml:secret@flow/api"), "http://ml:secret@flow")
    'no way to http://flow/api'
    """
    login, words = uri.partition("//")[2].rpartition("@")[0], str(error).partition("\n")[0]
    password = login.partition(":")[2]
    if login:
        words = words.replace(f"{login}@", "")
    if password:
        words = words.replace(password, "***").replace(unquote(password), "***")
    return words[:N_CHARACTERS]
