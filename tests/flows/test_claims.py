"""Whose run it is, told from files: by process, start time, host and boot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from flows.claims import Claims
from gpt_trader.processes import ProcessId
from gpt_trader.settings import Home


def test_a_claim_lives_while_worker_or_child_does(tmp_path: Path) -> None:
    claims, run_id = Claims(Home(tmp_path)), uuid4()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        claims.write(run_id, child=child.pid)
        (claim,) = claims
        dead_worker = replace(claim, worker=ProcessId(os.getpid(), "another start"))

        assert claim.alive()
        assert dead_worker.alive()

        child.kill()
        child.wait()
        assert not dead_worker.alive()
        assert claim.alive(), "this very process wrote it"


def test_a_reused_pid_is_not_the_same_process(tmp_path: Path) -> None:
    claims = Claims(Home(tmp_path))
    claims.write(uuid4())
    (claim,) = claims
    boot, _, tick = claim.worker.started.rpartition(":")

    assert claim.alive()
    assert not replace(claim, worker=ProcessId(os.getpid(), f"{boot}:{int(tick) - 1}")).alive()


def test_nothing_outlives_a_boot_whatever_the_host_is_called_now(tmp_path: Path) -> None:
    claims = Claims(Home(tmp_path))
    claims.write(uuid4())
    (claim,) = claims

    assert replace(claim, host="the same container, renamed").alive()
    assert not replace(claim, boot="an earlier one").alive()
    assert not replace(claim, boot="an earlier one", host="elsewhere").alive()


@pytest.mark.parametrize("torn", ["", "{", "[]", "null", '{"run_id": "x"}', '{"worker": 3}'])
def test_a_torn_claim_is_a_dead_one(tmp_path: Path, torn: str) -> None:
    claims, run_id = Claims(Home(tmp_path)), uuid4()
    claims.write(run_id)
    (tmp_path / "state" / "running" / f"{run_id}.json").write_text(torn)
    (claim,) = claims

    assert claim.run_id == str(run_id)
    assert not claim.alive()
    assert claims.inherited()


def test_own_claims_are_not_inherited(tmp_path: Path) -> None:
    claims = Claims(Home(tmp_path))
    claims.write(uuid4())

    assert not claims.inherited()


def test_a_removed_claim_is_gone_and_may_be_removed_again(tmp_path: Path) -> None:
    claims, run_id = Claims(Home(tmp_path)), uuid4()
    claims.write(run_id)
    path = tmp_path / "state" / "running" / f"{run_id}.json"
    assert json.loads(path.read_text())["run_id"] == str(run_id)

    claims.remove(run_id)
    claims.remove(run_id)

    assert list(claims) == []
