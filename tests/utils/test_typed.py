"""Values of files that have another type than declared are named."""

import json
from dataclasses import asdict, dataclass, field

import pytest
import torch
from safetensors.torch import save_file

from janusflow.evaluation import plan, report
from janusflow.models import lora
from janusflow.utils import locked_dir, processes
from janusflow.utils.typed import built


@dataclass(frozen=True)
class Sizes:
    name: str
    count: int = 1
    share: float | None = None
    names: tuple[str, ...] = ()
    table: dict[str, float] = field(default_factory=dict)


def test_honest_values_are_taken():
    made = built(Sizes, {"name": "a", "share": 1, "names": ["x"], "table": {"a": 2}}, "f.json")
    assert made == Sizes("a", share=1, names=("x",), table={"a": 2})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"count": True}, "count in f.json is True; expected int"),
        ({"count": 1.5}, "expected int"),
        ({"share": float("nan")}, "share in f.json is nan"),
        ({"share": 10**400}, "share in f.json is 1000"),
        ({"names": "xy"}, "names in f.json is 'xy'"),
        ({"names": [1]}, "names in"),
        ({"table": {"a": None}}, "table in"),
        ({"\x1b[2J": 1}, r"holds '\\x1b\[2J', which is not one of its fields"),
        ({"name": None}, "name in f.json is None"),
    ],
)
def test_values_of_another_type_are_named(change, match):
    with pytest.raises(ValueError, match=match) as caught:
        built(Sizes, {"name": "a"} | change, "f.json")
    assert len(str(caught.value)) < 300


WRONG = [None, True, -1, 2.5, "x", [], [[1]], {}, {"a": {}}, 10**400]


@pytest.mark.parametrize("value", WRONG, ids=lambda value: str(value)[:12])
def test_no_value_of_a_plan_or_report_ends_in_a_traceback(value, tmp_path):
    honest = plan.Plan(task="scenes", model="m", weights={"a": "0"}, dtype="float32", side=96)
    item = dict(split="test", group="g", index=0, seed=0, cluster=0, scores={"right": 1.0})
    told = dict(items=[item], scores={"test": {"groups": {}}}, protocol={"task": "scenes"})
    for name in asdict(honest):
        (tmp_path / plan.FILE).write_text(json.dumps(asdict(honest) | {name: value}))
        try:
            plan.read(tmp_path)
        except ValueError as error:
            assert len(str(error)) < 400
    path = tmp_path / "report.json"
    changed = [told | {name: value} for name in told]
    changed += [told | {"items": [item | {name: value}]} for name in item]
    for content in [*changed, told | {"protocol": {"task": value}}]:
        path.write_text(json.dumps(content))
        try:
            report.load(path)
        except ValueError as error:
            assert len(str(error)) < 400


@pytest.mark.parametrize(
    ("name", "value"), [("RANK", "x"), ("RANK", "-1"), ("WORLD_SIZE", "0"), ("WORLD_SIZE", "1e3")]
)
def test_an_environment_of_no_processes_is_named(name, value, monkeypatch, tmp_path):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"{name}='{value}'; expected a whole number"):
        processes.share()
        with locked_dir.alone(tmp_path):
            pass


def test_a_rank_beyond_the_world_is_named(monkeypatch):
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="RANK=2 and WORLD_SIZE=2"):
        processes.share()


@pytest.mark.parametrize(
    ("change", "dtype"),
    [({"lora_alpha": 10**400}, torch.float32), ({"r": 10**400}, torch.float32), ({}, "float8")],
    ids=["alpha", "rank", "float8"],
)
def test_an_adapter_of_absurd_numbers_is_refused(change, dtype, tmp_path):
    kind = torch.float8_e4m3fn if dtype == "float8" else dtype
    layer = "base_model.model.x.lora_"
    tensors = {f"{layer}A.weight": torch.zeros(2, 4), f"{layer}B.weight": torch.zeros(4, 2)}
    save_file({k: v.to(kind) for k, v in tensors.items()}, tmp_path / lora.WEIGHTS)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2} | change
    (tmp_path / lora.CONFIG).write_text(json.dumps(config))
    with pytest.raises(ValueError) as caught:
        lora.read(tmp_path)
    assert len(str(caught.value)) < 400
