import pytest
from word_tokenizer import TEMPLATE, make_tokenizer

from gopd_lightning.data import PromptEncoder
from gopd_lightning.errors import InputError

MESSAGES = [{"role": "system", "content": "one"}, {"role": "user", "content": "two a"}]


def decode(tokenizer, ids):
    return " ".join(tokenizer.convert_ids_to_tokens(ids))


def test_text_is_tokenised_as_it_is(encoder, tokenizer):
    ids, text = encoder.encode("one two", "x")
    assert (decode(tokenizer, ids), text) == ("one two", "one two")


@pytest.mark.parametrize(
    ("around", "expected"),
    [("$A", "one two"), ("<s> $A", "<s> one two"), ("<s> $A </s>", "<s> one two"), ("$A </s>", "one two")],
)
def test_text_gets_the_default_bos_and_never_an_eos(around, expected):
    tokenizer = make_tokenizer(around)
    encoder = PromptEncoder(tokenizer, None, "student")
    assert decode(tokenizer, encoder.encode("one two", "x")[0]) == expected
    assert decode(tokenizer, encoder.encode_strings(["one two"])[0]) == expected


def test_eos_written_in_the_text_stays():
    tokenizer = make_tokenizer("<s> $A </s>")
    ids, _ = PromptEncoder(tokenizer, None, "student").encode("one </s>", "x")
    assert decode(tokenizer, ids) == "<s> one </s>"


@pytest.mark.parametrize("around", ["$A", "<s> $A </s>"])
def test_messages_are_read_as_the_template_of_the_tokenizer_does(around):
    tokenizer = make_tokenizer(around, chat_template=TEMPLATE)
    ids, text = PromptEncoder(tokenizer, None, "student").encode(MESSAGES, "x")
    assert ids == tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True)["input_ids"]
    assert text == "<s> system one </s> <s> user two a </s> <s> assistant"
    assert decode(tokenizer, ids) == text


def test_each_model_has_its_own_template_arguments(tokenizer):
    thinking = PromptEncoder(tokenizer, {"enable_thinking": True}, "teacher")
    silent = PromptEncoder(tokenizer, {"enable_thinking": False}, "student")
    assert thinking.encode(MESSAGES, "x")[1] + " silent" == silent.encode(MESSAGES, "x")[1]


def test_many_mixed_prompts_equal_one_by_one():
    tokenizer = make_tokenizer("<s> $A", chat_template=TEMPLATE)
    encoder = PromptEncoder(tokenizer, None, "student")
    prompts = ["one", MESSAGES, "two three", MESSAGES[1:]]
    assert encoder.encode_many(prompts, ["x"] * 4) == [encoder.encode(prompt, "x") for prompt in prompts]


def test_response_ends_with_eos_and_has_no_other_special():
    tokenizer = make_tokenizer("<s> $A </s>")
    encoder = PromptEncoder(tokenizer, None, "student")
    assert decode(tokenizer, encoder.encode_response("one two")) == "one two </s>"
    assert encoder.encode_responses(["one two", ""]) == [encoder.encode_response("one two"), [2]]


def test_missing_template_names_model_and_row():
    encoder = PromptEncoder(make_tokenizer(), None, "teacher code")
    with pytest.raises(InputError, match=r"a\.jsonl row 3: teacher code's tokenizer has no chat template"):
        encoder.encode(MESSAGES, "a.jsonl row 3")


def test_missing_template_does_not_matter_to_text():
    assert PromptEncoder(make_tokenizer(), None, "student").encode("one", "x")[1] == "one"


def test_template_that_refuses_the_messages_names_the_row():
    tokenizer = make_tokenizer(chat_template="{{ raise_exception('user must come first') }}")
    encoder = PromptEncoder(tokenizer, None, "student")
    with pytest.raises(InputError, match=r"a\.jsonl row 3: student's .*user must come first"):
        encoder.encode(MESSAGES, "a.jsonl row 3")


def test_prompt_without_tokens_names_the_row(encoder):
    with pytest.raises(InputError, match="row 2: `prompt` is empty once tokenised for student"):
        encoder.encode_many(["one", " "], ["row 1", "row 2"])


def test_response_without_an_eos_token_is_refused():
    encoder = PromptEncoder(make_tokenizer(eos_token=None), None, "student")
    with pytest.raises(InputError, match="student: the tokenizer has no eos_token"):
        encoder.encode_response("one")


@pytest.mark.parametrize("key", ["tokenize", "add_generation_prompt"])
def test_template_arguments_of_the_encoder_itself_are_refused(tokenizer, key):
    with pytest.raises(InputError, match=f"teacher: template_kwargs must not set {key}"):
        PromptEncoder(tokenizer, {key: False}, "teacher")


@pytest.mark.parametrize("truncated", [False, True], ids=["fast path", "file with a truncation setting"])
def test_token_ids_are_those_of_the_tokenizer_whole(truncated):
    tokenizer = make_tokenizer("<s> $A </s>")
    if truncated:
        tokenizer.backend_tokenizer.enable_truncation(2)
    texts = ["one two three", "a </s> b", "unheard"]
    expected = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert [ids[1:] for ids in PromptEncoder(tokenizer, None, "student").encode_strings(texts)] == expected
    assert len(expected[0]) == 3


def test_nothing_to_tokenise_is_fine(encoder):
    assert encoder.encode_many([], []) == []
    assert encoder.encode_strings([]) == []
