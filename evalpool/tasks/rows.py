"""What a dataset holds for each question of a task, of the kinds `continuation` and `ending`."""

from __future__ import annotations

from evalpool.tasks.prompts import ChoicePrompt


def kind_of(prompt: ChoicePrompt) -> str:
    """The kind of dataset that a question belongs to."""
    return "continuation" if len(prompt.prompts) == 1 else "ending"


def row_of(prompt: ChoicePrompt) -> dict[str, object]:
    """A question as a row to be loaded.

    The delimiter between prompt and choice goes to the prompt's end, so that the choices' lengths
    are theirs alone; white space there is tokenised with the choice, as lm-evaluation-harness does.
    """
    if kind_of(prompt) == "ending":
        return {
            "choices": list(prompt.prompts),
            "ending": prompt.continuations[0],
            "answer_index": prompt.answer,
        }
    delimiter = prompt.continuations[0].removesuffix(prompt.choices[0])
    return {
        "prompt": prompt.prompts[0] + delimiter,
        "choices": list(prompt.choices),
        "answer_index": prompt.answer,
    }
