"""The README's shell session, run as it stands but for the ports and the pool's duration."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from evalpool.endpoints import PORTS
from tests.end_to_end.deployments import Deployment

ROOT = Path(__file__).resolve().parents[2]


def session() -> str:
    text = (ROOT / "README.md").read_text()
    part = text.split("<!-- session -->")[1].split("<!-- /session -->")[0]
    return "\n".join(re.findall(r"```sh\n(.*?)```", part, re.DOTALL))


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_readmes_session_funds_a_pool_and_pays_it_out(
    deployment: Deployment, home: Path
) -> None:
    script = session()
    for service, port in PORTS.items():
        script = script.replace(f"127.0.0.1:{port}", f"127.0.0.1:{deployment.ports[service]}")
    assert script.count('"PT2M"') == 1
    script = script.replace('"PT2M"', '"PT20S"')

    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        env={**os.environ, "PATH": deployment.environment["PATH"]},
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nevalpool.token.v1.TokenService\n" in f"\n{done.stdout}"
    assert "rpc Transfer (" in done.stdout
    assert '"status": "SERVING"' in done.stdout
    assert '"state": "FUNDING_STATE_CREATED"' in done.stdout
    assert re.search(r"state +scored", done.stdout)
    assert '"reward": "1500"' in done.stdout
    assert re.search(r"state +paid", done.stdout)
    assert '"balance": "1500"' in done.stdout
