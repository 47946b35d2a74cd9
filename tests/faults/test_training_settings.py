"""Faults of a run's settings: out of range, damaged, hostile, or other ones at the resume."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from small_training import short, steps_of, tensors_of, train, use_toy
from vltrack.core.errors import CheckpointCorrupt, ConfigError, StateError
from vltrack.core.files import write_checksummed
from vltrack.training import checkpoint, loop
from vltrack.training.data import prepare_data
from vltrack.training.launch import configured
from vltrack.training.publish import publish
from vltrack.training.sources import Source

OPTIONS = {"model": "litetrack", "size": "tiny"}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    use_toy(monkeypatch)


@pytest.mark.fault("T05")
def test_every_setting_is_refused_with_both_values_where_it_changes_the_run(tmp_path: Path) -> None:
    config = short(steps=1)
    train(config, tmp_path)
    path, settings = tmp_path / "config.json", json.loads((tmp_path / "config.json").read_text())
    before = steps_of(tmp_path), tensors_of(tmp_path)
    places = [
        (f"{key}.{inner}" if inner else key, key, inner)
        for key, value in settings.items()
        for inner in (value if isinstance(value, dict) else [""])
    ]
    assert len(places) > 70
    for name, key, inner in places:
        other = json.loads(json.dumps(settings))
        (other[key] if inner else other)[inner or key] = 0.123
        path.write_text(json.dumps(other))
        if name in ("save_every", "validate_every"):
            loop._check_folder(config, tmp_path, resume=True)
            continue
        with pytest.raises(StateError) as refused:
            train(config, tmp_path, resume=True)
        value = settings[key][inner] if inner else settings[key]
        assert f"other values of {name} (0.123, now {value})" in refused.value.message
    assert (steps_of(tmp_path), tensors_of(tmp_path)) == before


@pytest.mark.fault("T05")
def test_other_data_are_refused(tmp_path: Path) -> None:
    given = [Source(name="stills", root=tmp_path / name) for name in "ab"]
    record = [{"name": "stills", "root": str(tmp_path / "a")}]
    (tmp_path / "data.json").write_text(json.dumps(record))
    with pytest.raises(StateError, match=rf"other data: stills \({tmp_path}/a\)") as refused:
        prepare_data(short(), given[1:], tmp_path)
    assert refused.value.exit_code == 9


@pytest.mark.fault("T19")
@pytest.mark.parametrize(
    "setting",
    [
        "steps=0",
        "batch=-1",
        "learning_rate=0",
        "clip=0",
        "save_every=0",
        "validate_every=0",
        "clips.frames=1",
        "accumulate=0",
    ],
)
def test_nothing_to_do_is_refused(setting: str) -> None:
    key, _, value = setting.partition("=")
    with pytest.raises(ConfigError, match=rf"{key} is {value}") as refused:
        configured({**OPTIONS, "settings": {key: value}})
    assert refused.value.exit_code == 5


@pytest.mark.fault("C14")
@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("learning_rat", "1", "learning_rate"),
        ("pairs.twin_shar", "1", "twin_share"),
        ("nothing.at_all", "1", "nothing.at_all"),
        ("model", "aitrack", "model"),
        ("learning_rate", "nan", "nan"),
        ("learning_rate", "1e999", "1e999"),
        ("steps", "1e3", "1e3"),
        ("steps", "no", "no"),
        ("bf16", "yes", "yes"),
        ("words", "glove", "glove"),
        ("betas", "0.9,x", "x"),
        ("pairs.twin_share", "1.5", "1.5"),
        ("pairs.split", "test", "test"),
        ("clips.text_share", "-1", "-1"),
    ],
)
def test_a_bad_setting_is_named(key: str, value: str, named: str) -> None:
    with pytest.raises(ConfigError) as refused:
        configured({**OPTIONS, "settings": {key: value}})
    assert refused.value.exit_code == 5
    assert named in str(refused.value)


def test_tuples_are_given_with_commas() -> None:
    settings = {"only": "head.,bert.", "betas": "0.8,0.99", "slow": ""}
    config = configured({**OPTIONS, "settings": settings})
    assert (config.trainable, config.betas, config.low_lr_prefixes) == (("head.", "bert."), (0.8, 0.99), ())


@pytest.mark.fault("C14")
@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1, "a": 2}', '{"a": NaN}', "\xff", ""])
def test_a_damaged_configuration_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"config\.json"):
        train(short(), tmp_path, resume=True)


@pytest.mark.fault("C15")
@pytest.mark.parametrize("kind", ["deep", "large"])
@pytest.mark.timeout(20)
def test_a_hostile_configuration_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("w") as file:
        file.write("[" * 100_000 if kind == "deep" else "{")
        file.truncate(100_000 if kind == "deep" else 1 << 32)
    with pytest.raises(ConfigError):
        train(short(), tmp_path, resume=True)
    (tmp_path / "config.json").rename(tmp_path / "step-1.json")
    with pytest.raises(CheckpointCorrupt):
        checkpoint.averaged(tmp_path)


@pytest.mark.fault("C16")
def test_runs_that_start_from_each_other_or_from_nothing_are_named(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    train(short(steps=1), first)
    record = json.loads((first / "step-1.json").read_text())
    del record["seal"]

    def starts(run: Path, start: Path) -> None:
        run.mkdir(exist_ok=True)
        write_checksummed(run / "step-1.json", record | {"config": record["config"] | {"start": str(start)}})
        (run / "step-1.safetensors").write_bytes(tensors_of(first))

    starts(first, second)
    with pytest.raises(ConfigError, match="second") as refused:
        publish(first, tmp_path / "w.safetensors")
    assert refused.value.exit_code == 5
    starts(second, first)
    with pytest.raises(ConfigError, match=r"first <- .*second <- .*first"):
        publish(first, tmp_path / "w.safetensors")
    assert not (tmp_path / "w.safetensors").exists()
