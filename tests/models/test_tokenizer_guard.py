"""Tokenizers, configurations and preprocessors of strangers are taken or refused in a sentence."""

import json
import os
from dataclasses import replace

import pytest
from tokenizers import Regex, Tokenizer, normalizers

from janusflow.models.janus_pro.loading import own_config
from janusflow.models.janus_pro.loading import read_config as read_pro
from janusflow.models.janusflow.configuration import JanusFlowConfig
from janusflow.models.janusflow.processing import JanusFlowProcessor
from janusflow.models.processor_files import ProcessorFiles
from janusflow.models.tokenizer_guard import is_usual, quietly, tokenizing
from janusflow.utils.config_guard import check_config
from janusflow.utils.hub import WEIGHTS

FILES = ProcessorFiles.read(WEIGHTS / "scenes")
TEN = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}


def normalized(*steps):
    return dict(normalizer={"type": "Sequence", "normalizers": list(steps)})


def model(**change):
    return dict(model=json.loads(FILES.tokenizer)["model"] | change)


TOKENIZERS = {
    "a long prefix": normalized({"type": "Prepend", "prepend": "x" * 20_000}),
    "ten by ten by ten": normalized(TEN, TEN, TEN),
    "sequences inside": normalized(TEN, {"type": "Sequence", "normalizers": [TEN, TEN]}),
    "nothing replaced": normalized({"type": "Replace", "pattern": {"String": ""}, "content": "x"}),
    "a number replaced": normalized({"type": "Replace", "pattern": {"String": 5}, "content": "x"}),
    "a kind without hash": normalized({"type": ["NFC"]}),
    "a tag without hash": dict(added_tokens=[{"id": 5, "content": ["x"]}]),
    "a charsmap": normalized({"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    "many steps": normalized(*[{"type": "NFC"}] * 100),
    "a loud decoder": dict(decoder=TEN | {"content": "a" * 10**6}),
    "pieces of length 0": dict(pre_tokenizer={"type": "FixedLength", "length": 0}),
    "dropout": model(dropout=0.1),
    "an id beyond all": model(vocab=model()["model"]["vocab"] | {"zz": 2**32 - 1}),
    "one id twice": model(vocab=model()["model"]["vocab"] | {"zz": 300, "yy": 300}),
    "no unknown token": dict(
        model={"type": "Unigram", "vocab": [["A", 0.0]], "unk_id": None, "byte_fallback": False}
    ),
}


@pytest.mark.parametrize("case", TOKENIZERS)
def test_a_tokenizer_that_hangs_panics_or_wavers_is_refused(case):
    text = json.dumps(json.loads(FILES.tokenizer) | TOKENIZERS[case])
    with pytest.raises(ValueError, match="token") as caught:
        JanusFlowProcessor(replace(FILES, tokenizer=text))
    assert len(str(caught.value)) <= 300 and "\n" not in str(caught.value)


def test_a_panic_prints_no_line_of_its_own(capfd):
    panicking = dict(type="Precompiled", precompiled_charsmap="AAAA")
    with pytest.raises(BaseException, match="."), quietly():  # noqa: RUF043
        os.write(2, b"kept\n")
        Tokenizer.from_str(json.dumps(json.loads(FILES.tokenizer) | dict(normalizer=panicking)))
    assert capfd.readouterr().err == "kept\n"


def test_honest_normalizers_are_taken():
    text = json.dumps(json.loads(FILES.tokenizer) | normalized({"type": "NFKC"}, TEN))
    ids = JanusFlowProcessor(replace(FILES, tokenizer=text)).ids("a")
    assert len(ids) > 2


class PanicException(BaseException):
    """As pyo3 raises it."""


@pytest.mark.parametrize("error", [PanicException("index out of bounds"), Exception("no unk")])
def test_a_panic_at_a_later_text_is_a_sentence(error):
    with pytest.raises(ValueError, match=r"cannot read or write this text \((index|no unk)"):
        with tokenizing():
            raise error


PREPROCESSORS = [
    {"rescale_factor": -1},
    {"rescale_factor": "x"},
    {"rescale_factor": 10**400},
    {"image_mean": {"a": 1, "b": 2, "c": 3}},
    {"image_mean": [10**400, 1, 1]},
    {"do_rescale": "no"},
]


@pytest.mark.parametrize("change", PREPROCESSORS, ids=lambda change: str(change)[:30])
def test_a_preprocessor_of_wrong_numbers_is_refused(change):
    files = replace(FILES, preprocessor_config={**FILES.preprocessor_config, **change})
    with pytest.raises(ValueError) as caught:
        JanusFlowProcessor(files)
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize("change", [{"system_prompt": "a b " * 10**6}, {"sft_format": [1]}])
def test_a_processor_of_wrong_texts_is_refused(change):
    with pytest.raises(ValueError):
        JanusFlowProcessor(replace(FILES, processor_config={**FILES.processor_config, **change}))


def test_long_questions_and_prompts_are_refused_in_python_too():
    processor = JanusFlowProcessor(FILES)
    for call in (processor, processor.prompt):
        with pytest.raises(ValueError, match="more than 4000 characters; shorten it"):
            call("a" * 4_001)


@pytest.mark.parametrize("change", [{"image_size": 48}, {"num_image_tokens": 9}])
def test_images_of_another_size_than_the_networks_are_refused_on_loading(change, tiny_folder):
    processor = JanusFlowProcessor.from_pretrained(tiny_folder)
    files = processor.files
    made = dict(
        preprocessor_config={**files.preprocessor_config, **change},
        processor_config={**files.processor_config, **change},
    )
    vision = JanusFlowConfig.from_pretrained(tiny_folder).vision
    processor.check_images(vision.image_size, vision.tokens)
    with pytest.raises(ValueError, match="the network takes 96 and 36"):
        JanusFlowProcessor(replace(files, **made)).check_images(vision.image_size, vision.tokens)


CONFIGS = [
    {"num_labels": 10**7},
    {"id2label": [1]},
    {"label2id": {str(i): i for i in range(20_000)}},
    {"pad_token_id": 10**9},
    {"eos_token_id": [1, "x"]},
    {"return_dict": False},
    {"torchscript": True},
    {"attn_implementation": "someone/kernel"},
    {"_attn_implementation_internal": "flash_attention_2"},
    {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
    {"dtype": "os.system"},
]


@pytest.mark.parametrize("change", CONFIGS, ids=lambda change: str(change)[:40])
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("kind", ["scenes", "scenes-pro"])
def test_no_configuration_of_either_family_names_code_or_absurd_numbers(
    change, inside, kind, tmp_path
):
    content = json.loads((WEIGHTS / kind / "config.json").read_text())
    block = "language_config" if kind == "scenes" else "text_config"
    content |= {block: content[block] | change} if inside else change
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError) as caught:
        if kind == "scenes":
            JanusFlowConfig.from_pretrained(tmp_path)
        else:
            read_pro(tmp_path)
            own_config(tmp_path)
    assert next(iter(change)) in str(caught.value) and len(str(caught.value)) <= 300


def test_published_configurations_are_taken():
    for path in WEIGHTS.glob("**/config.json"):
        check_config(json.loads(path.read_text()), "config.json")


def test_a_panic_at_a_later_text_of_an_unusual_tokenizer_prints_nothing(capfd):
    with pytest.raises(ValueError, match="index out of bounds"), tokenizing(quiet=True):
        os.write(2, b"\nthread '<unnamed>' panicked at lib.rs:1\nnote: run with `X=1`\n")
        raise PanicException("index out of bounds")
    assert capfd.readouterr().err == ""


def test_the_published_kinds_of_tokenizer_are_usual_and_others_are_not():
    usual = JanusFlowProcessor(FILES)
    assert not usual._quiet and usual.decode(usual.ids("a red circle")).endswith("a red circle")
    backend = usual.tokenizer.backend_tokenizer
    for other in (normalizers.Nmt(), normalizers.Replace(Regex("a*"), "b")):
        backend.normalizer = other
        assert not is_usual(backend)
        backend.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Sequence([other])]
        )
        assert not is_usual(backend)


def test_a_text_at_which_byte_level_bpe_panics_prints_one_sentence_only(capfd):
    loses = normalized({"type": "Replace", "pattern": {"Regex": "q*$"}, "content": "  "})
    text = json.dumps(json.loads(FILES.tokenizer) | loses)
    processor = JanusFlowProcessor(replace(FILES, tokenizer=text))
    with pytest.raises(ValueError, match=r"cannot read or write this text \(index out of bounds"):
        for question in ("\n\n", "q\n\nqq\n", "a red circleqq\n", "\n"):
            processor.ids(question)
    assert capfd.readouterr().err == ""
