"""A YAML or a command line that cannot work is refused in one line that names file and key."""

import pytest
from refusals import callbacks, data, model

# The YAML

UNKNOWN = [
    (lambda c: c.update(modl={}), "modl is not an option; did you mean model?"),
    (lambda c: c.update(modl={"a": 1}), "modl is not an option; did you mean model?"),
    (lambda c: c["trainer"].update(max_stepz=3), "trainer.max_stepz is not an option; did you mean max_steps?"),
    (lambda c: c["model"].update(init_arg={}), "model.init_arg is not an option; did you mean init_args?"),
    (
        lambda c: model(c).update(reward_scal=1.5),
        "model.init_args.reward_scal is not an option; did you mean reward_scale?",
    ),
    (
        lambda c: model(c)["teachers"][1].update(reference_model={"path": "x"}),
        "model.init_args.teachers[1].reference_model is not an option; did you mean reference?",
    ),
    (lambda c: model(c)["student"].update(lorra={}), "model.init_args.student.lorra is not an option"),
    (
        lambda c: model(c).update(reference={"pth": "x"}),
        "model.init_args.reference.pth is not an option; did you mean path?",
    ),
    (lambda c: model(c)["optimizer"]["init_args"].update(lrr=1), "model.init_args.optimizer.init_args.lrr is not"),
    (lambda c: data(c)["train"][1].update(dmain="x"), "data.init_args.train[1].dmain is not an option"),
    (
        lambda c: callbacks(c)[0]["init_args"]["sampling"].update(max_tokens=3),
        "trainer.callbacks[0].init_args.sampling.max_tokens is not an option; did you mean max_new_tokens?",
    ),
]
WRONG = [
    (lambda c: model(c).update(reward_scale="big"), "model.init_args.reward_scale is 'big': expected float"),
    (
        lambda c: model(c)["teachers"][1].update(reward_scale="big"),
        "model.init_args.teachers[1].reward_scale is 'big': expected float or null",
    ),
    (lambda c: c["trainer"].update(max_steps="many"), "trainer.max_steps is 'many': expected int"),
    (lambda c: data(c).update(prompts_per_step="four"), "data.init_args.prompts_per_step is 'four': expected int"),
    (
        lambda c: callbacks(c)[0]["init_args"]["sampling"].update(n="two"),
        "trainer.callbacks[0].init_args.sampling.n is 'two': expected int",
    ),
    (lambda c: model(c).update(student="assets"), "model.init_args.student: expected a mapping"),
    (lambda c: model(c)["teachers"][1].pop("path"), "model.init_args.teachers[1].path is missing"),
    (lambda c: model(c)["teachers"][1].pop("domain"), "model.init_args.teachers[1].domain is missing"),
    (lambda c: model(c).pop("student"), "model.init_args.student.path is missing"),
]
CLASSES = [
    (
        lambda c: c["model"].update(class_path="gopd_lightning.GOPDX"),
        "model.class_path: there is no gopd_lightning.GOPDX; did you mean gopd_lightning.GOPD?",
    ),
    (lambda c: c["model"].update(class_path="GOPDX"), "model.class_path: GOPDX names no module"),
    (
        lambda c: c["model"].update(class_path="gopd_lightning.PromptData"),
        "model.class_path: gopd_lightning.PromptData is not a LightningModule",
    ),
    (
        lambda c: c["data"].update(class_path="nowhere.PromptData"),
        "data.class_path: there is no nowhere.PromptData",
    ),
    (
        lambda c: model(c)["optimizer"].update(class_path="torch.optim.AdamX"),
        "model.init_args.optimizer.class_path: there is no torch.optim.AdamX",
    ),
    (
        lambda c: callbacks(c)[1].update(class_path="gopd_callbacks.Stop"),
        "trainer.callbacks[1].class_path: there is no gopd_callbacks.Stop",
    ),
    (
        lambda c: callbacks(c)[1].update(class_path="torch.nn.Linear"),
        "trainer.callbacks[1].class_path: torch.nn.Linear is not a Callback",
    ),
]


@pytest.mark.parametrize(("change", "says"), UNKNOWN)
def test_unknown_key(content, refused, tmp_path, change, says):
    change(content)
    assert refused(content).startswith(f"gopd: {tmp_path}/config.yaml: {says}")


@pytest.mark.parametrize(("change", "says"), WRONG)
def test_value_of_the_wrong_type_or_missing(content, refused, tmp_path, change, says):
    change(content)
    assert refused(content).startswith(f"gopd: {tmp_path}/config.yaml: {says}")


@pytest.mark.parametrize(("change", "says"), CLASSES)
def test_class_path_that_does_not_fit(content, refused, tmp_path, change, says):
    change(content)
    assert refused(content).startswith(f"gopd: {tmp_path}/config.yaml: {says}")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: model(c).update(estimator="fuller"), "model.estimator is 'fuller'; known: sampled, full"),
        (lambda c: model(c).update(loss_aggregation="mean"), "model.loss_aggregation is 'mean'; known: token_mean"),
        (lambda c: model(c).update(on_nonfinite="go"), "model.on_nonfinite is 'go'; known: stop, skip"),
        (lambda c: model(c).update(reference="teacher"), "model.reference is 'teacher': write student_init"),
        (lambda c: model(c).update(temperature=0.5), "model.temperature is 0.5: say with model.frozen_temperature"),
        (lambda c: callbacks(c)[0]["init_args"]["sampling"].update(n=0), "sampling.n = 0 is out of range"),
        (lambda c: callbacks(c)[0]["init_args"]["sampling"].update(top_p=0.9), "sampling.top_p = 0.9"),
        (lambda c: data(c).update(prompts_per_step=0), "data.init_args.prompts_per_step = 0"),
    ],
)
def test_setting_that_is_out_of_range(lean, refused, change, says):
    change(lean)
    assert refused(lean).startswith(f"gopd: {says}")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--model.rewrd_scale", "2"), "--model.rewrd_scale is not an option; did you mean --model.reward_scale?"),
        (
            ("--trainer.callbacks.init_args.sampling.max_new_tokens", "8"),
            "--trainer.callbacks.init_args.sampling.max_new_tokens is not an option here",
        ),
        (("--trainer.max_stepz=3",), "--trainer.max_stepz is not an option; did you mean --trainer.max_steps?"),
        (("--model.reward_scale", "big"), "--model.reward_scale is 'big': expected float"),
        (("--trainer.max_steps", "0"), "trainer.max_steps is 0"),
    ],
)
def test_flag_that_does_not_fit(content, refused, flags, says):
    assert refused(content, *flags).startswith(f"gopd: {says}")


def test_config_file_that_is_not_there(refused, tmp_path):
    line = refused(None, "--config", str(tmp_path / "nowhere.yaml"))
    assert line == f"gopd: --config: there is no file '{tmp_path}/nowhere.yaml'"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model:\n  a: [1, 2\ntrainer: x\n", "not YAML at line 3"),
        ("model: a: b\n", "not YAML at line 1, column 9"),
        ("- 1\n- 2\n", "not a mapping of keys to values"),
        ("", "the file is empty"),
    ],
)
def test_config_file_that_is_malformed(refused, tmp_path, text, says):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    assert refused(None, "--config", str(file)).startswith(f"gopd: {file}: {says}")


def test_config_without_a_model(content, refused):
    del content["model"]
    assert "no model given" in refused(content)
