"""Hyper-parameters, each said once: what follows from a field in files, options, messages and pages."""

from __future__ import annotations

import importlib.util
import math
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commandline import invoke, run, to_set, ucadi
from federation import Federation, make_federation
from hypothesis import given
from hypothesis import strategies as st
from places import ROOT
from typer import Context

from ucadi.cli import command_line
from ucadi.errors import FormatError, UsageError
from ucadi.fed.optimisers import FEDAVG, ServerOptimiser
from ucadi.formats import plan as plan_format
from ucadi.formats import roster as roster_format
from ucadi.formats import schedules
from ucadi.formats.schedules import ROUND_SETTINGS, choose, read_recipe
from ucadi.hyperparameters import Recipe
from ucadi.learn.networks.architecture import Architecture
from ucadi.settings import Setting, as_toml, settings_of
from ucadi.spellings import respelled
from ucadi.translation.recipe import TranslationRecipe, TranslatorArchitecture

TRANSLATION = settings_of(TranslationRecipe)
ALL = [*ROUND_SETTINGS.values(), *TRANSLATION.values()]
KINDS = (Recipe, ServerOptimiser, TranslationRecipe, TranslatorArchitecture, Architecture)
OF_COMMANDS = {"train": ROUND_SETTINGS, "round open": ROUND_SETTINGS, "translate train": TRANSLATION}

WERE_OPTIONS = {
    "train": {
        "--local-epochs": "local_epochs", "--total-epochs": "total_epochs", "--warmup-epochs": "warmup_epochs",
        "--learning-rate": "learning_rate", "--batch-size": "batch_size", "--drop-rate": "drop_rate",
        "--seed": "seed", "--precision": "precision",
    },
    "translate train": {
        "--epochs": "total_epochs", "--batch-size": "batch_size", "--learning-rate": "learning_rate",
        "--slices-per-case": "slices_per_case", "--consistency": "consistency", "--identity": "identity",
        "--seed": "seed", "--precision": "precision",
    },
}  # fmt: skip
ALWAYS_SAID = set(WERE_OPTIONS["train"].values())
"""What every plan says, since the first."""

WERE_OPTIONS["round open"] = WERE_OPTIONS["train"]


def single(one: Setting) -> st.SearchStrategy[Any]:
    """Any value of a setting that holds one."""
    if one.choices:
        return st.sampled_from(one.choices)
    if one.kind is bool:
        return st.booleans()
    if one.kind is int:
        assert one.least is not None
        assert one.most is not None, f"{one.name}: a whole number needs both bounds"
        least = int(one.least)
        return st.integers(0, (int(one.most) - least) // one.step).map(lambda n: least + n * one.step)
    low = one.least if one.above is None else one.above
    assert low is not None, f"{one.name}: how low may it be?"
    return st.floats(low, one.below, exclude_min=one.above is not None, exclude_max=one.below is not None).filter(
        math.isfinite
    )


def possible(one: Setting) -> st.SearchStrategy[Any]:
    return st.lists(single(one), min_size=1, max_size=one.longest).map(tuple) if one.many else single(one)


def beyond(one: Setting) -> list[Any]:
    """Values that are just too low or too high, of the wrong kind, or no value at all."""
    wrong: list[Any] = [math.nan, math.inf, {}, [[]], "4", b"1", 10**400, -(10**400)]
    wrong += [None] if not one.optional else []
    wrong += [1.5, True] if one.kind is int else [1, 0.0] if one.kind in (bool, str) else [True]
    if one.kind in (int, float):
        wrong += [one.least - 1] if one.least is not None else [one.above]
        wrong += [limit for limit in (one.below, None if one.most is None else one.most + 1) if limit is not None]
        wrong += [] if one.step == 1 or one.least is None else [one.least + 1]
    return [(value,) for value in wrong] + [(), one.choices * 99] if one.many else wrong


@given(st.data())
def test_what_a_field_may_hold_can_be_typed_and_written_as_toml(data: st.DataObject) -> None:
    one = data.draw(st.sampled_from(ALL))
    value = data.draw(possible(one))
    typed = ",".join(map(repr, value)) if one.many else str(value)
    assert one.parse(typed) == one.parse(f" {typed} ".strip()) == one.check(value) == value
    key = one.name
    (written,) = tomllib.loads(f"value = {replace(one, default=value, example=None).toml()}").values()
    assert one.check(written) == value
    settings = ROUND_SETTINGS if ROUND_SETTINGS.get(key) == one else TRANSLATION
    assert choose(settings, None, [f"{key}={typed}"]) == {key: value}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_a_field_may_not_hold_is_named_with_its_bounds(kind: type[Any]) -> None:
    for one in settings_of(kind).values():
        for value in beyond(one):
            with pytest.raises((UsageError, FormatError)) as caught:
                kind(**{one.name: value})
            assert re.search(rf"\b{one.name} is .", caught.value.message), (one.name, value)
            assert caught.value.hint == f"it must be {one.wanted}"
            assert "\n" not in caught.value.message
            assert len(caught.value.message) < 100


@given(st.fixed_dictionaries({}, optional={name: possible(one) for name, one in settings_of(Recipe).items()}))
def test_a_schedule_goes_into_a_plan_and_back(chosen: dict[str, Any]) -> None:
    chosen["total_epochs"] = max(chosen.get("total_epochs", 100), chosen.get("local_epochs", 1))
    recipe = Recipe(**{"clip_norm": 1.0, **chosen})
    document = schedules.to_document(recipe)
    assert schedules.parse(document) == recipe
    assert schedules.to_document(schedules.parse(document)) == document
    always = {"local_epochs", "total_epochs", "warmup_epochs", "learning_rate", "batch_size", "drop_rate", "seed"}
    differs = {name for name in settings_of(Recipe) if getattr(recipe, name) != getattr(Recipe(), name)}
    assert document.keys() == always | {"precision"} | differs, (
        "what plans have always said, and what is not the default"
    )


def test_whole_numbers_are_floats_where_floats_are_meant(tmp_path: Path) -> None:
    """A plan's bytes must not depend on whether a person wrote 1 or 1.0."""
    (tmp_path / "one.toml").write_text("learning_rate = 1\nloss_weights = [1, 1, 2, 1]\n")
    (tmp_path / "two.toml").write_text("learning_rate = 1.0\nloss_weights = [1.0, 1.0, 2.0, 1.0]\n")
    one, two = (schedules.to_document(read_recipe(tmp_path / name).schedule) for name in ("one.toml", "two.toml"))
    typed = schedules.to_document(read_recipe(None, to_set(learning_rate=1, loss_weights="1,1,2,1")).schedule)
    assert repr(one) == repr(two) == repr(typed)


# --set


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return make_federation(tmp_path_factory.mktemp("settings"))


def opening(made: Federation, output: Path, *more: str | Path) -> list[str | Path]:
    return [
        "round", "open", "--number", "1", "--base", made.base, "--roster", made.roster, "--key",
        made.key("coordinator"), "-o", output, *more,
    ]  # fmt: skip


def test_what_is_set_wins_over_the_recipe(made: Federation, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        "learning_rate = 0.5\nbatch_size = 4\nclip_norm = 2.0\n[server]\nmethod = 'fedadam'\ndecay = 0.9\n"
    )
    words = ["--recipe", recipe]
    for one in ("batch_size=8", "batch_size=9", "clip_norm=none", "server.decay=0.8", "local_norms=true"):
        words += ["--set", one]
    run(*opening(made, tmp_path / "plan.json", *words))
    plan, _ = plan_format.read(tmp_path / "plan.json", roster_format.read(made.roster))
    assert plan.schedule == Recipe(learning_rate=0.5, batch_size=9), "of several, the last"
    assert (plan.server.method, plan.server.decay, plan.server.rate) == ("fedadam", 0.8, 0.01)


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ("learning_rat=0.1", "--set: there is no 'learning_rat'", "did you mean learning_rate"),
        ("learning-rate=0.1", "there is no 'learning-rate'", "did you mean learning_rate"),
        ("server.metod=fedadam", "there is no 'server.metod'", "did you mean server.method"),
        ("=3", "there is no ''", "there are local_epochs, total_epochs"),
        ("xyz=3", "there is no 'xyz'", "there are local_epochs, total_epochs"),
        ("seed", "--set seed: it says no value", "--set help lists the keys"),
        ("seed=", "--set: seed is ''", "a whole number from 0 to"),
        ("batch_size=1", "batch_size is 1", "a whole number of CTs from 2 to 65536"),
        ("batch_size=4.0", "batch_size is '4.0'", "a whole number"),
        ("batch_size=1" + "0" * 5000, "batch_size is '10000", "a whole number"),
        ("learning_rate=fast", "learning_rate is 'fast'", "a number, zero or more"),
        ("learning_rate=nan", "learning_rate is nan", "a number, zero or more"),
        ("learning_rate=1e999", "learning_rate is inf", "a number, zero or more"),
        ("balanced=yes", "balanced is 'yes'", "true or false"),
        ("loss_weights=1,2,x", "loss_weights is '1,2,x'", "1 to 4 numbers above zero"),
        ("loss_weights=1,0", "loss_weights is [1.0, 0.0]", "1 to 4 numbers above zero"),
        ("precision=int8", "precision is 'int8'", "float32 or bfloat16"),
        ("warmup_epochs=101", "101 epochs of warm-up in a schedule of 100", "at most total_epochs"),
        ("local_epochs=101", "101 local epochs in a schedule of 100", "from 1 to total_epochs"),
        ("noise=1", "clip_norm, which is not given", "clip_norm = 1.0"),
        ("server.learning_rate=1.5", "fedavg adds the mean as it is", "fedavgm"),
    ],
)
def test_what_cannot_be_set(made: Federation, tmp_path: Path, words: str, message: str, hint: str) -> None:
    refused = invoke(*opening(made, tmp_path / "plan.json", "--set", words))
    assert refused.exit_code == 2
    first, second = refused.stderr.splitlines()
    assert message in first
    assert hint in second
    assert not (tmp_path / "plan.json").exists()


def test_the_file_is_named_where_the_fault_is_its(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text("local_epochs = 8\ntotal_epochs = 4\n")
    with pytest.raises(FormatError, match=r"^mine\.toml: 8 local epochs in a schedule of 4"):
        read_recipe(recipe)
    with pytest.raises(UsageError, match=r"^8 local epochs in a schedule of 7"):
        read_recipe(recipe, ["total_epochs=7"])
    assert read_recipe(recipe, ["total_epochs=8"]).schedule.total_epochs == 8
    recipe.write_text(f"seed = 0x{'f' * 5000}\n")
    with pytest.raises(FormatError, match=r"^mine\.toml: seed is a number of thousands of digits$"):
        read_recipe(recipe)
    recipe.write_text("pool_size = -1\n")
    with pytest.raises(FormatError, match=r"^mine\.toml: pool_size is -1$"):
        choose(TRANSLATION, recipe, [])


def test_a_translator_s_weights_are_its_method_s_unless_chosen() -> None:
    assert TranslationRecipe.of("acl-gan", {}).consistency == 0.2
    assert TranslationRecipe.of("acl-gan", {"consistency": 3.0}).consistency == 3
    assert TranslationRecipe.of("cyclegan", {}) == TranslationRecipe()


# Options


def parsed(command: str, *words: str) -> dict[str, Any]:
    """What a command's function is given for these words."""
    found: Any = command_line(whole=True)
    for word in command.split():
        found = found.commands[word]
    present, _ = respelled(command, words)
    context: Context = found.make_context(command, present, resilient_parsing=True)
    return context.params


@pytest.mark.parametrize("command", OF_COMMANDS)
def test_old_spellings_are_settings(command: str) -> None:
    for option, key in WERE_OPTIONS[command].items():
        for words in ([option, "7"], [f"{option}=7"]):
            assert parsed(command, *words) == parsed(command, "--set", f"{key}=7")
    assert parsed(command, "--", "--seed", "7")["settings"] is None, "after -- nothing is an option"
    both = parsed(command, "--set", "seed=1", "--batch-size", "4", "--force", "--seed", "2")
    assert both["settings"] == ["seed=1", "batch_size=4", "seed=2"]
    assert both["force"] is True


def test_old_spellings_give_the_same_plan(made: Federation, tmp_path: Path) -> None:
    old = ["--learning-rate", "0.1", "--batch-size=4", "--precision", "bfloat16", "--seed", "3", "--drop-rate", "0"]
    new = to_set(learning_rate=0.1, batch_size=4, precision="bfloat16", seed=3, drop_rate=0)
    run(*opening(made, tmp_path / "old.json", *old))
    run(*opening(made, tmp_path / "new.json", *(word for one in new for word in ("--set", one))))
    assert (tmp_path / "old.json").read_bytes() == (tmp_path / "new.json").read_bytes()
    lone = ucadi(*opening(made, tmp_path / "x.json", "--learning-rate"))
    assert lone.returncode == 2
    assert "requires an argument" in lone.stderr


@pytest.mark.parametrize("command", OF_COMMANDS)
def test_old_spellings_are_not_shown(command: str) -> None:
    helped = ucadi(*command.split(), "--help", env={**os.environ, "COLUMNS": "80"}).stdout
    assert "--set" in helped
    found: Any = command_line(whole=True)
    for word in command.split():
        found = found.commands[word]
    own = {option for parameter in found.params for option in parameter.opts}
    assert not own & {f"--{k.replace('_', '-')}" for k, one in OF_COMMANDS[command].items() if one.kind is not bool}, (
        "an option would be taken away"
    )
    assert "--learning-rate" not in helped


@pytest.mark.parametrize("command", OF_COMMANDS)
def test_the_list_of_settings_is_a_recipe_of_the_defaults(command: str, tmp_path: Path) -> None:
    settings = OF_COMMANDS[command]
    listed = ucadi(*command.split(), "--set", "help")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert max(map(len, listed.stdout.splitlines())) <= 80
    path = tmp_path / "recipe.toml"
    path.write_text(listed.stdout)
    chosen = choose(settings, path, [])
    assert chosen == {key: one.default for key, one in settings.items() if not one.unset}
    path.write_text(re.sub(r"^# (?=[\w.]+ = )", "", listed.stdout, flags=re.MULTILINE))
    assert choose(settings, path, []).keys() == settings.keys(), "what stands in comments is understood, too"
    assert all(one.help.endswith(".") for one in settings.values())


def test_a_recipe_of_the_defaults_is_none(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(as_toml(ROUND_SETTINGS))
    assert read_recipe(path) == read_recipe(None) == schedules.RoundRecipe(Recipe(), FEDAVG)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("l", {"local_epochs=", "learning_rate=", "loss_weights=", "local_norms="}),
        ("precision=", {"precision=float32", "precision=bfloat16"}),
        ("server.m", {"server.method=", "server.momentum="}),
    ],
)
def test_shells_complete_what_can_be_set(typed: str, offered: set[str]) -> None:
    asked = {"_UCADI_COMPLETE": "complete_bash", "COMP_WORDS": f"ucadi train --set {typed}", "COMP_CWORD": "3"}
    program = "import sys; sys.argv[0] = 'ucadi'; from ucadi.cli import main; main()"
    answer = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **asked}, capture_output=True, text=True, check=True
    )
    assert set(answer.stdout.split()) == offered


def test_options_have_the_bounds_of_their_fields(tmp_path: Path) -> None:
    """An option's own bounds cannot be others than those of what it becomes."""
    for words, message in (
        (["init", "--width", "1"], "1 is not in the range"),
        (["init", "--architecture", "resnet18"], "name is 'resnet18'"),
        (["init", "--norm", "layer"], "norm is 'layer'"),
        (["translate", "train", "a.h5", "b.h5", "--depth", "4"], "depth is 4"),
        (["translate", "train", "a.h5", "b.h5", "--size", "33"], "size is 33"),
        (["translate", "train", "a.h5", "b.h5", "--width", "1025"], "1025 is not in the range"),
        (["translate", "train", "a.h5", "b.h5", "--method", "wishing"], "method is 'wishing'"),
    ):
        refused = invoke(*words, "-o", tmp_path / "x")
        assert refused.exit_code == 2
        assert message in refused.stderr, refused.stderr


# Pages


def tables() -> Any:
    """docs/make_settings.py as a module."""
    spec = importlib.util.spec_from_file_location("make_settings", ROOT / "docs/make_settings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_settings_are_those_of_the_code() -> None:
    made = tables()
    found = []
    for page in made.PAGES:
        text = (ROOT / "docs" / page).read_text()
        assert made.renewed(text) == text, f"docs/{page} is stale: python docs/make_settings.py"
        found += [name for _, name, _ in made.MARKED.findall(text)]
    assert sorted(found) == sorted(made.TABLES), "each table has its place"


# Adding one

FIELD = '    sharpness: float = setting(1.0, "Exponent of the learning rate\'s fall.", above=0, most=9)\n'

ACTS = ("(1 + math.cos(math.pi * done)) / 2", "((1 + math.cos(math.pi * done)) / 2) ** recipe.sharpness")

PROBE = """
from pathlib import Path
from ucadi.formats import schedules
from ucadi.learn.recipe import learning_rate
Path("recipe.toml").write_text("sharpness = 2")
recipe = schedules.read_recipe(Path("recipe.toml")).schedule
assert schedules.parse(schedules.to_document(recipe)) == recipe
assert schedules.to_document(recipe)["sharpness"] == 2.0
assert "sharpness" not in schedules.to_document(schedules.read_recipe(None).schedule)
print(learning_rate(recipe, 52.5))
"""


def test_a_new_hyper_parameter_takes_two_files(made: Federation, tmp_path: Path) -> None:
    """Its field, and where it acts: then files, options, plans and pages know it."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "ucadi", copy / "ucadi", ignore=shutil.ignore_patterns("__pycache__", "static", "*.weights"))
    shutil.copytree(ROOT / "docs", copy / "docs", ignore=shutil.ignore_patterns("*.png"))
    for name, before, after in (
        ("hyperparameters.py", "\n    def __post_init__", f"{FIELD}\n    def __post_init__"),
        ("learn/recipe.py", *ACTS),
    ):
        path = copy / "ucadi" / name
        text = path.read_text()
        assert text.count(before) == 1
        path.write_text(text.replace(before, after))

    def python(*words: str | Path) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(copy)}
        command = [sys.executable, *map(str, words)]
        return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)

    def changed(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return python("-c", "from ucadi.cli import main; main()", *words)

    assert float(python("-c", PROBE).stdout) == 0.01 * 0.5**2
    assert "sharpness = 1.0" in changed("train", "--set", "help").stdout
    refused = changed(*opening(made, tmp_path / "plan.json", "--set", "sharpness=10"))
    assert refused.returncode == 2
    assert "sharpness is 10" in refused.stderr
    assert changed(*opening(made, tmp_path / "plan.json", "--set", "sharpness=2")).returncode == 0
    assert '"sharpness":2.0' in (tmp_path / "plan.json").read_text()
    older = ucadi("encrypt", made.update("site-a"), "--plan", tmp_path / "plan.json", "--roster", made.roster,
                  "--key", made.key("site-a"), "-o", tmp_path / "x.enc")  # fmt: skip
    assert older.returncode == 3, "a site of an older release refuses what it does not know"
    assert "there is no 'sharpness'" in older.stderr
    assert python("docs/make_settings.py").returncode == 0
    for page in ("training.md", "formats/documents.md"):
        assert "`sharpness`" in (copy / "docs" / page).read_text()


def test_every_setting_is_used_somewhere() -> None:
    """A hyper-parameter that nothing reads would be a promise that is not kept."""
    source = "\n".join(path.read_text() for path in (ROOT / "ucadi").rglob("*.py"))
    held: Mapping[str, Setting] = settings_of(Recipe) | TRANSLATION
    for name in held:
        assert re.search(rf"(recipe|schedule|chosen)\.{name}\b", source), name
