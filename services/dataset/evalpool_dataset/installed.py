"""The kinds and parts that are installed, and whether they are those that a version was made with.

A version's digest covers what its parts do. Where a release changes one, the version's questions
are not asked by the new part under the old digest: what is scored stays, and nothing more is asked
of that version until its parts are back.
"""

from __future__ import annotations

from collections.abc import Mapping

from evalpool_dataset.digest import JsonValue, canonical_json
from evalpool_dataset.parts import Evaluator, Kind, Parameters, Parts
from evalpool_dataset.problem import INTERNAL, UNAVAILABLE, Problem
from evalpool_dataset.scoring import Metric
from evalpool_dataset.store.definitions import Definition, Version
from evalpool_runtime.errors import Unavailable, reasons

ANSWERING = ("prompt_template", "result_retriever", "score_calculator")
"""The parts that bear on an answer whatever the evaluator; rows once loaded need no loader."""


class NotUsable(Exception):
    """A version's questions cannot be asked with what is installed.

    Attributes:
        problem: Why, and the remedy.
    """

    def __init__(self, reason: str, code: str) -> None:
        super().__init__(reason)
        self.problem = Problem(reason, code)


def require_kind(kinds: Mapping[str, Kind], definition: Definition, field: str = "dataset") -> Kind:
    """A dataset's kind.

    Raises:
        Unavailable: It came from a distribution that is not installed any more.
    """
    kind = kinds.get(definition.kind)
    if kind is None:
        raise Unavailable(
            reasons.ERROR_REASON_UNAVAILABLE,
            f'{field}: the kind "{definition.kind}" of {definition.id} is not installed at this '
            "server any more; ask its operator to install it",
        )
    return kind


def parameters_of(definition: Definition, evaluator: Evaluator | None = None) -> Parameters:
    """What the owner chose; with another evaluator for a run with that."""
    return Parameters.read(
        evaluator or Evaluator(definition.evaluator),
        Metric(definition.metric),
        definition.system_prompt,
        definition.parameters,
    )


def evaluator_parameters(
    kinds: Mapping[str, Kind], definition: Definition, version: Version, evaluator: Evaluator
) -> Mapping[str, JsonValue]:
    """What the evaluator of a run says of itself: the version's own, or another one.

    Raises:
        NotUsable: It is another one, and not installed, or broken.
    """
    if evaluator == definition.evaluator:
        return version.parts["evaluator"]
    return _build(kinds, definition, evaluator).evaluator.spec()


def usable_parts(
    kinds: Mapping[str, Kind],
    definition: Definition,
    version: Version,
    evaluator: Evaluator,
    parameters: Mapping[str, JsonValue],
) -> Parts:
    """The parts that answer a run's questions: those that its version was made with.

    Args:
        kinds: The kinds that are installed, by name.
        definition: The dataset.
        version: The version.
        evaluator: How the run's answers are obtained.
        parameters: What that evaluator said of itself when the run was started.

    Raises:
        NotUsable: They are not installed, or broken.
    """
    parts = _build(kinds, definition, evaluator)
    made_with = {name: version.parts[name] for name in ANSWERING} | {"evaluator": parameters}
    present = parts.specs()
    changed = [name for name, spec in made_with.items() if not _alike(spec, present[name])]
    if changed:
        raise NotUsable(
            f"it was made with another {' and another '.join(changed)} of the kind "
            f'"{definition.kind}" than is installed at the dataset service; install the release '
            "that made it, or load the questions again, which makes a new version",
            UNAVAILABLE,
        )
    return parts


def usable_evaluators(
    kinds: Mapping[str, Kind], definition: Definition, version: Version | None
) -> list[str]:
    """The evaluators that a dataset at a version can be judged with, sorted by name."""
    kind = kinds.get(definition.kind)
    known = sorted(kind.evaluators) if kind else []
    return [e for e in known if version is None or _is_usable(kinds, definition, version, e)]


def _is_usable(
    kinds: Mapping[str, Kind], definition: Definition, version: Version, evaluator: Evaluator
) -> bool:
    try:
        parameters = evaluator_parameters(kinds, definition, version, evaluator)
        usable_parts(kinds, definition, version, evaluator, parameters)
    except NotUsable:
        return False
    return True


def _build(kinds: Mapping[str, Kind], definition: Definition, evaluator: Evaluator) -> Parts:
    kind = kinds.get(definition.kind)
    if kind is None or evaluator not in kind.evaluators:
        raise NotUsable(
            f'the kind "{definition.kind}" with the evaluator {evaluator} is not installed at the '
            "dataset service any more; install it there and start the run again",
            UNAVAILABLE,
        )
    try:
        return kind.parts(parameters_of(definition, evaluator))
    except Exception as error:
        # Kinds are others' code too: one that is broken must not keep the other runs waiting.
        raise NotUsable(
            f'the kind "{definition.kind}" is broken: {error}; mend it and start the run again',
            INTERNAL,
        ) from error


def _alike(one: JsonValue, other: JsonValue) -> bool:
    return canonical_json(one) == canonical_json(other)
