"""`evalpool model`, `infer`, `chat`, `judge`, `documents` and `search` on a whole deployment."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from evalpool.models import find_model, sha256_of
from tests.end_to_end.conftest import SMOLLM2
from tests.evalpool.cli.commands import Cli

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FRANCE = ("infer", "The capital of France is", "--max-tokens", "3", "--temperature", "0")


def test_a_model_is_pulled_quantised_pushed_and_used(cli: Cli, tmp_path: Path) -> None:
    cli("wallet", "new", "trainer")
    file = tmp_path / "mine.gguf"

    pulled = cli("model", "pull", SMOLLM2, "-o", "json").json
    assert pulled["digest"] == find_model(SMOLLM2).sha256
    assert cli("model", "pull", SMOLLM2).out.splitlines()[1] == f"path    {pulled['path']}"
    made = cli("model", "quantise", SMOLLM2, "Q2_K", str(file))
    assert made.out == f"digest  {sha256_of(file)}\npath    {file}\n"
    other = tmp_path / "other.gguf"
    size = cli("model", "quantise", SMOLLM2, "Q2_K", str(other), "-o", "json").json["size_bytes"]
    assert size == file.stat().st_size < Path(pulled["path"]).stat().st_size
    assert cli("model", "push", str(file), "-w", "trainer").out == f"{sha256_of(file)}\n"
    again = cli("model", "push", str(file), "-w", "trainer", "-o", "json").json
    assert (again["existed"], again["model"]["name"]) == (True, "mine")

    listed = {each["digest"]: each for each in cli("model", "list", "-o", "json").json}
    assert listed[sha256_of(file)]["quantisation"] == "Q2_K"
    table = cli("model", "list").out
    assert all(shown in table for shown in ("mine", SMOLLM2, "the catalogue", "Q2_K"))
    used = cli(*FRANCE, "--model", str(file), "-w", "trainer", "-o", "json").json
    assert used["complete"]["provenance"]["model_digest"] == sha256_of(file)
    assert cli(*FRANCE, "--model", str(file)).failure.endswith("[SUBJECT_NOT_OWNED]")


def test_a_text_is_continued_the_same_way_each_time(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = cli(*FRANCE, "-o", "json").json
    assert "Paris" in found["text"]
    assert found["complete"]["usage"]["completion_tokens"] == 3
    assert found["complete"]["provenance"]["model_digest"] == find_model(SMOLLM2).sha256
    streamed = cli(*FRANCE)
    assert streamed.out == found["text"] + "\n"
    assert "3 generated" in streamed.err
    monkeypatch.setattr("sys.stdin", io.StringIO("The capital of France is"))
    assert cli("infer", "-", *FRANCE[2:]).out == streamed.out


def test_how_tokens_are_chosen_can_be_told(cli: Cli, tmp_path: Path) -> None:
    grammar = tmp_path / "colour.gbnf"
    grammar.write_text('root ::= " " ("red" | "green" | "blue")')
    colour = ("infer", "A colour is", "--max-tokens", "8", "--grammar", str(grammar))
    assert cli(*colour).out in {" red\n", " green\n", " blue\n"}
    drawn = ("infer", "Once upon a time", "--max-tokens", "16", "--temperature", "1.5")
    seeded = (*drawn, "--seed", "7", "--top-k", "0", "--top-p", "1", "--min-p", "0")
    assert cli(*seeded).out == cli(*seeded).out != cli(*seeded[:-6], "--top-k", "1").out
    assert "Paris" not in cli(*FRANCE, "--stop", "Par").out
    again = ("infer", "la la la la la la", "--max-tokens", "8")
    assert cli(*again).out != cli(*again, "--repeat-penalty", "1.5", "--presence-penalty", "2").out


@pytest.mark.parametrize(
    ("text", "option", "message"),
    [
        ("root ::= [a-", "--grammar", "sampling.grammar: is not valid GBNF"),
        ("", "--top-p=0", "sampling.top_p"),
        ("", "--repeat-penalty=0", "sampling.repeat_penalty"),
        ("", "--stop=", "sampling.stop"),
    ],
)
def test_what_cannot_be_chosen_by_names_the_field(
    cli: Cli, tmp_path: Path, text: str, option: str, message: str
) -> None:
    file = tmp_path / "grammar.gbnf"
    file.write_text(text)
    options = (option, str(file)) if option == "--grammar" else (option,)
    assert message in cli(*FRANCE, *options).failure


def test_how_likely_the_model_held_each_token_is_shown(cli: Cli) -> None:
    found = cli(*FRANCE, "--logprobs", "2", "-o", "json").json
    assert len(found["logprobs"]) == 3
    first = found["logprobs"][0]
    assert first["chosen"] == first["likeliest"][0]
    assert first["likeliest"][0]["logprob"] > first["likeliest"][1]["logprob"]
    shown = cli(*FRANCE, "--logprobs", "2").out
    assert shown.startswith(found["text"] + "\n")
    header, _, *rows = shown.removeprefix(found["text"]).strip().splitlines()
    assert header.split() == ["token", "logprob", "likeliest"]
    assert any('" Paris"' in row and f"{first['chosen']['logprob']:.3f}" in row for row in rows)
    assert "logprobs" not in cli(*FRANCE, "-o", "json").json


def test_a_turn_is_rendered_by_the_template_that_is_given(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "template.jinja"
    file.write_text("The capital of {{ messages[-1].content }} is")
    given = cli("infer", "France", "--chat-template", str(file), *FRANCE[2:])
    assert given.out == cli(*FRANCE).out
    file.write_text("{% if %}")
    failed = cli("infer", "France", "--chat-template", str(file), *FRANCE[2:]).failure
    assert "chat.template: can't render the messages" in failed
    assert failed.endswith("[INVALID_FIELD]")


def test_the_chat_model_answers_a_question_and_a_conversation(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = cli("chat", "What is the capital of France?")
    assert "Paris" in answer.out
    # What it took is shown at a terminal only.
    assert answer.err == ""
    short = cli("chat", "Count to ten.", "--max-tokens", "4", "-o", "json").json
    assert short["complete"]["usage"]["completion_tokens"] == 4
    assert short["text"]
    said = "What is the capital of France?\n\nAnd of Germany?\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(said))
    france, germany = cli("chat").out.splitlines()
    assert "Paris" in france
    # The second question says nothing without the first.
    assert "Berlin" in germany


def test_an_answer_is_graded_by_the_judge(cli: Cli) -> None:
    asked = ("judge", "What is the capital of France?", "Paris")
    own = cli(*asked, "-o", "json").json
    assert "Paris" in own["response"]
    assert own["provenance"]["model_digest"] == find_model(SMOLLM2).sha256
    given = cli(*asked, "It is London.", "--seed", "7", "-o", "json").json
    assert 0 <= given["score"] <= 10
    assert (given["seed"], given["response"]) == (7, "It is London.")
    shown = cli(*asked, "It is London.", "--seed", "7").out
    assert f"{given['score']} of 10" in shown
    assert given["prompt_digest"] in shown
    long = cli(*asked, "word " * 12_000)
    assert long.failure.startswith("question: ")
    assert long.failure.endswith("[CONTEXT_TOO_LONG]")


def test_documents_are_searched(cli: Cli, tmp_path: Path) -> None:
    cli("wallet", "new", "reader")
    file = tmp_path / "documents.jsonl"
    documents = [
        {"content": "A cat sits on the mat.", "meta": {"page": "1"}},
        {"content": "The stock market fell.", "meta": {"page": "2"}},
    ]
    file.write_text("".join(json.dumps(each) + "\n" for each in documents))
    as_array = tmp_path / "documents.json"
    as_array.write_text(json.dumps(documents))

    made = cli("documents", "create", "mine", str(file), "-w", "reader").out
    assert made.startswith("mine: 2 documents, ready, digest ")
    same = cli("documents", "create", "other", str(as_array), "-w", "reader", "-o", "json").json
    assert same["digest"] in made
    listed = cli("documents", "list", "-w", "reader", "-o", "json").json
    assert [each["hash"] for each in listed] == ["mine", "other"]
    assert "mine" in cli("documents", "list", "-w", "reader").out

    found = cli("search", "mine", "Where is the cat?", "-w", "reader", "-o", "json").json
    assert [each["meta"]["page"] for each in found] == ["1", "2"]
    assert found[0]["similarity"] > found[1]["similarity"]
    table = cli("search", "mine", "Where is the cat?", "--top-k", "1", "-w", "reader").out
    assert "A cat sits on the mat." in table
    assert "page=1" in table
    assert "stock market" not in table

    grounded = ("chat", "Where is the cat?", "--dataset-hash", "mine", "-w", "reader")
    answer = cli(*grounded, "--top-k", "1", "-o", "json").json
    assert [each["content"] for each in answer["used"]] == ["A cat sits on the mat."]
    assert "mat" in answer["text"]
    shown = cli(*grounded).err.splitlines()
    assert [line.split("  ", 1)[1] for line in shown[:2]] == [each["content"] for each in documents]
    assert "used" not in cli("chat", "Where is the cat?", "-o", "json").json

    assert cli("documents", "delete", "mine", "-w", "reader").out == "deleted mine\n"
    deleted = cli("documents", "delete", "other", "-w", "reader", "-o", "json").json
    assert deleted == {"hash": "other"}
    gone = cli("search", "mine", "Where is the cat?", "-w", "reader").failure
    assert gone.endswith("[DOCUMENT_SET_NOT_FOUND]")


def test_what_cannot_be_done_is_one_line_with_its_reason(cli: Cli, tmp_path: Path) -> None:
    no_json = tmp_path / "documents.txt"
    no_json.write_text("hello")
    assert "documents.txt is no list of" in cli("documents", "create", "x", str(no_json)).failure
    for command, reason in (
        (("infer", ""), "INVALID_FIELD"),
        (("infer", "hello", "--model", "nothing"), "MODEL_NOT_FOUND"),
        (("infer", "hello", "--model", "0" * 64), "MODEL_NOT_FOUND"),
        (("infer", "word " * 20_000), "CONTEXT_TOO_LONG"),
        (("chat", "hello", "--model", "nothing"), "MODEL_NOT_FOUND"),
        (("chat", "word " * 20_000), "INVALID_FIELD"),
        (("chat", "word " * 12_000), "CONTEXT_TOO_LONG"),
        (("judge", "hello", "", "hello"), "INVALID_FIELD"),
        (("judge", "hello", "hello", "--model", "nothing"), "MODEL_NOT_FOUND"),
        (("search", "nothing", "hello"), "DOCUMENT_SET_NOT_FOUND"),
        (("chat", "hello", "--dataset-hash", "nothing"), "DOCUMENT_SET_NOT_FOUND"),
    ):
        assert cli(*command).failure.endswith(f"[{reason}]"), command
        assert cli(*command, "-o", "json").error["reason"] == reason
