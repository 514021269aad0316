"""What a dataset of the kind `continuation` holds for each question of a task."""

from __future__ import annotations

from evalpool.tasks.errors import TaskError
from evalpool.tasks.prompts import ChoicePrompt


def row_of(prompt: ChoicePrompt) -> dict[str, object]:
    """A question as a row to be loaded.

    The delimiter between prompt and choice goes to the prompt's end, so that the choices' lengths
    are theirs alone; white space there is tokenised with the choice, as lm-evaluation-harness does.

    Raises:
        TaskError: The choices are prompts, each with its own beginning.
    """
    if len(prompt.prompts) != 1:
        raise TaskError(
            "doc_to_text: the choices are prompts (partial scoring), which a dataset cannot hold"
        )
    delimiter = prompt.continuations[0].removesuffix(prompt.choices[0])
    return {
        "prompt": prompt.prompts[0] + delimiter,
        "choices": list(prompt.choices),
        "answer_index": prompt.answer,
    }
