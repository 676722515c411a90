"""Settings: any order, any preset, old names, changes on the way."""

import pytest

from janusflow.training import build, config, job, resume_checks
from janusflow.training.alignment.repa import PRESETS
from janusflow.training.config_stages import STAGES
from janusflow.training.recipes import Recipe


def asked(*items: str, stage: str = "2") -> config.Settings:
    return config.changed(config.of_stage(stage), config.parse(items))


@pytest.mark.parametrize("turn", [1, -1])
def test_the_settings_of_a_section_may_come_in_any_order(turn):
    items = ["alignment.schedule=stop", "alignment.until=1000", "alignment=repa"][::turn]
    found = asked(*items).alignment
    assert (found.schedule, found.until, found.weight) == ("stop", 1000, 0.5)


@pytest.mark.parametrize("name", [*PRESETS, "none"])
@pytest.mark.parametrize("stage", STAGES)
def test_what_a_run_writes_can_be_its_config(tmp_path, name, stage):
    ours = asked(f"alignment={name}", "adapter.rank=4", "later.5.training.lr=1e-6", stage=stage)
    path = tmp_path / "settings.yaml"
    path.write_text(config.dump(ours))
    assert config.load(path) == ours
    assert config.changed(config.of_stage(1), config.read(path)) == ours


def test_the_settings_of_a_recipe_can_be_its_config(tmp_path):
    ours = job.of_recipe("scenes-smoke", tmp_path, {"alignment": "haste"}).settings
    (tmp_path / "settings.yaml").write_text(config.dump(ours))
    changes = config.read(tmp_path / "settings.yaml")
    assert job.of_recipe("scenes-smoke", tmp_path, changes).settings == ours


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("training.clip=2", "training.max_grad_norm=2"),
        ("training.prompt_drop=0.5", "training.cond_dropout=0.5"),
        ("training.trains=linear", "training.trainable=linear"),
        ("run.broken_limit=3", "run.max_bad_samples=3"),
    ],
)
def test_old_names_are_taken_with_a_warning(old, new):
    with pytest.warns(FutureWarning, match="is now called"):
        found = asked(old)
    assert found == asked(new)
    section, _, rest = old.partition(".")
    key, _, value = rest.partition("=")
    with pytest.warns(FutureWarning, match="is now called"):
        assert config.changed(config.of_stage(2), {section: {key: value}}) == found


def test_old_names_of_recipes_are_read_from_checkpoints():
    text = Recipe(cond_dropout=0.3).to_json().replace("cond_dropout", "prompt_drop")
    assert Recipe.from_json(text).cond_dropout == 0.3


def test_a_name_that_is_nearly_right_is_suggested():
    with pytest.raises(ValueError, match=r"did you mean 'training\.lr'\?"):
        asked("training.lrr=1")


def test_another_density_forgets_the_numbers_of_the_one_before():
    assert asked("training.density=uniform", stage="tune").training.time_options == {}
    with pytest.raises(ValueError, match="'uniform' has no mean"):
        asked("training.density=uniform", "training.density_mean=1")


def test_a_warm_up_longer_than_the_run_is_told():
    (said,) = job.warnings_of(asked("training.steps=300", stage="3"))
    assert "warm-up of 1,000 steps is longer than the run of 300" in said
    assert not job.warnings_of(asked("training.steps=300", "training.warmup=30", stage="3"))


@pytest.mark.parametrize("stage", STAGES)
def test_starts_are_the_sums_of_the_counts(stage):
    ours = asked("training.batch=7", "training.opening_steps=4", "later.6.training.batch=5")
    for settings in (ours, config.of_stage(stage)):
        total = {}
        for step in range(12):
            assert {k: v for k, v in settings.schedule.start(step).items() if v} == total
            for kind, count in settings.schedule.counts(step).items():
                if count:
                    total[kind] = total.get(kind, 0) + count


def test_what_changes_on_resume_is_kept_as_a_later_change(tmp_path):
    before = asked("later.2.training.lr=3e-5")
    ours = asked("training.lr=1e-5", "training.steps=7", "training.density=uniform")
    found, changes = resume_checks.continued(ours, before, 4, tmp_path)
    assert set(changes) == {"training.lr", "training.steps", "training.density"}
    assert [found.at(step).training.lr for step in (0, 2, 4)] == [1e-4, 3e-5, 1e-5]
    assert found.steps == 7 and found.at(9).training == ours.training
    again, none = resume_checks.continued(found, found, 5, tmp_path)
    assert again == found and not none


def test_what_decides_the_tensors_does_not_change(tmp_path):
    for item in ("training.optimizer=muon", "alignment=none", "adapter.rank=2", "alignment.tap=3"):
        with pytest.raises(ValueError, match="--init-from"):
            resume_checks.continued(asked(item), asked(), 4, tmp_path)
        with pytest.raises(ValueError, match="cannot change"):
            asked(f"later.3.{item}")


def test_losses_that_compare_samples_do_not_depend_on_the_accumulation():
    for name in ("dispersive", "contrastive"):
        with pytest.raises(ValueError, match="would change the loss"):
            asked(f"alignment={name}", "run.accumulation=2")


def test_old_names_of_classes_and_functions_still_stand():
    from janusflow.training import loop, trainer

    with pytest.warns(DeprecationWarning, match="Trainer"):
        assert trainer.Engine is trainer.Trainer
    with pytest.warns(DeprecationWarning, match="TrainJob"):
        assert job.Plan is job.TrainJob
    with pytest.warns(DeprecationWarning, match="trainer_of"):
        assert loop.engine_of is loop.trainer_of
    with pytest.raises(AttributeError):
        _ = trainer.Motor


@pytest.mark.parametrize("kind", ["dispersive", "contrastive"])
def test_a_loss_between_samples_needs_one_in_each_process(kind):
    changes = {"alignment": kind, "training.mixture": {"generation": 1, "understanding": 3}}
    settings = config.changed(config.of_stage("tune"), changes | {"training.batch": 12})
    for processes in (1, 3):
        build._check_compared(settings, processes)
    with pytest.raises(ValueError, match="a step has 3 for 4 processes"):
        build._check_compared(settings, 4)


@pytest.mark.parametrize("text", ["4:3", "1:1", "12:30:45.5", "1:1 4:3"])
def test_an_aspect_ratio_is_a_text_and_no_time_of_day(text):
    settings = config.changed(config.of_stage("2"), config.parse([f"data.buckets={text}"]))
    assert settings.data.buckets == text


@pytest.mark.parametrize("word", ["no", "off", "false", "False"])
def test_no_is_a_text_to_a_text_and_false_to_a_switch(word):
    found = config.parse([f"run.packed={word}", "run.mixed_precision=no"])
    settings = config.changed(config.of_stage("2"), found)
    assert settings.run.packed is False and settings.run.mixed_precision == "no"


@pytest.mark.parametrize("name", ["max_bad_samples", "max_bad_steps", "evaluate_every"])
def test_numbers_of_a_run_that_count_from_none_are_not_negative(name):
    with pytest.raises(ValueError, match=f"run.{name} is -1; expected at least 0"):
        asked(f"run.{name}=-1")


def test_a_settings_file_that_sets_a_value_twice_is_refused(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("training:\n  lr: 1e-3\n  steps: 4\n  lr: 2e-3\n")
    with pytest.raises(ValueError, match="it sets 'lr' twice; keep one"):
        config.read(path)
