"""Runs in lm-evaluation-harness's own environment: scores prompts as its tasks do, and times it.

Reads one JSON object a line, `{"pairs": [[context, continuation], ...]}`, and answers each with a
line, `{"seconds": ..., "sums": [...]}`. The first line says that the model is loaded; loading,
which a run pays once, is not timed.

    python lm_eval_driver.py hf MODEL.gguf      batch 32, 32-bit floats
    python lm_eval_driver.py gguf URL           one request after another to that server
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance


def load(kind: str, where: str) -> Any:
    """The harness's model, as `--model hf` or `--model gguf` makes it."""
    if kind == "gguf":
        from lm_eval.models.gguf import GGUFLM

        return GGUFLM(base_url=where)
    from lm_eval.models.huggingface import HFLM

    path = Path(where)
    return HFLM(
        pretrained=str(path.parent),
        gguf_file=path.name,
        tokenizer=None,
        batch_size=32,
        dtype="float32",
        device="cpu",
    )


def main() -> None:
    """Answer until the input ends."""
    # Whatever the harness prints must not stand between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    model = load(sys.argv[1], sys.argv[2])
    print(json.dumps({"loaded": True}), file=answers, flush=True)
    for line in sys.stdin:
        requests = [
            Instance("loglikelihood", {}, (context, continuation), number)
            for number, (context, continuation) in enumerate(json.loads(line)["pairs"])
        ]
        started = time.perf_counter()
        sums = [total for total, _ in model.loglikelihood(requests, disable_tqdm=True)]
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "sums": sums}), file=answers, flush=True)


if __name__ == "__main__":
    main()
