"""`stream-rec config` and `stream-rec user-key`: what is set, where it was set, whether it is right."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from stream_rec import cli_options, config
from stream_rec.errors import BadRecord, SettingsError

app = typer.Typer(no_args_is_help=True, help="See and check the settings.")


@app.command()
def show(
    as_json: cli_options.Json = False,
    changed: Annotated[bool, typer.Option("--changed", help="Only what differs from the defaults.")] = False,
    config_file: cli_options.ConfigFile = None,
    *,
    sets: cli_options.Sets = None,
    out: cli_options.Out = None,
) -> None:
    """Every setting with its value and where it comes from; secrets are masked.

    A `semantic` setting can change a result, so a replay refuses to go on under another; an `operational` one cannot.
    The environment names slate.n_slots STREAM_REC_SLATE__N_SLOTS; the file has n_slots under [slate]. What each
    setting trades stands in the README and in `--json`.

    Example: stream-rec config show --changed --set slate.n_slots=10
    """
    settings = cli_options.settings_from(config_file, sets, {"run.dir": ("--out", out)})
    rows = [asdict(v) for v in config.sources(settings) if not changed or v.source != config.DEFAULT]
    columns = ("name", "value", "source", "effect")
    cli_options.print_rows(rows, columns, as_json, empty="every setting has its default")


@app.command()
def check(
    config_file: cli_options.ConfigFile = None, sets: cli_options.Sets = None, out: cli_options.Out = None
) -> None:
    """Check the settings and the privacy key, as `worker` and `replay` would; exit 2 says what to mend.

    Example: stream-rec config check --config shop.toml
    """
    settings = cli_options.settings_from(config_file, sets, {"run.dir": ("--out", out)})
    config.privacy_key(settings)
    sys.stdout.write(f"the settings are right; semantic digest {config.semantic_digest(settings)}\n")


def user_key(
    user_id: Annotated[str, typer.Argument(metavar="ID", help="The shop's user id; `-` reads it from standard input.")],
    session: Annotated[
        bool, typer.Option("--session", help="ID is a session's: the key for a visitor without a user id.")
    ] = False,
    config_file: cli_options.ConfigFile = None,
    *,
    sets: cli_options.Sets = None,
) -> None:
    """The key under which a user's slates are published: 32 hex digits.

    The first 128 bits of HMAC-SHA256(privacy key, user id in UTF-8). The id is repaired as that of an event is:
    trimmed, and `17850.0` is `17850`. A session's key is 128 bits of a keyed BLAKE2b.

    Example: echo -n 17850 | stream-rec user-key -
    """
    from stream_rec.stream.privacy import Pseudonymiser
    from stream_rec.stream.quality import clean_id

    settings = cli_options.settings_from(config_file, sets)
    names = Pseudonymiser(config.privacy_key(settings))
    try:
        raw = sys.stdin.buffer.read().decode() if user_id == "-" else user_id
        repaired = clean_id(raw, "bad_user_id", [])
    except (BadRecord, UnicodeDecodeError):
        raise SettingsError("the id has more than 256 characters, control characters or is not UTF-8") from None
    if not repaired:
        raise SettingsError("the id is empty; give the id as the events have it")
    key = names.session(repaired).stand_in if session else names.user_key(repaired)
    sys.stdout.write(f"{key.hex()}\n")
