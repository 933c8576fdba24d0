"""What camcli sets for its own process: the garbage collector, and the threads of OpenMP."""

from __future__ import annotations

import gc
import os
import weakref

import pytest

from camcli.cli.collector import exempt_imported_objects, pause_collection
from camcli.cli.openmp import SPIN_COUNT, limit_spinning


class Knot:
    """An object in a cycle, which only the collector frees."""

    def __init__(self) -> None:
        self.itself = self


def test_collection_pauses_and_goes_on() -> None:
    assert gc.isenabled()
    with pause_collection():
        assert not gc.isenabled()
        with pause_collection():
            pass
        assert not gc.isenabled()  # the outer context goes on
    assert gc.isenabled()


def test_collection_goes_on_after_an_error() -> None:
    with pytest.raises(KeyError), pause_collection():
        raise KeyError
    assert gc.isenabled()


def test_only_the_first_objects_are_exempt() -> None:
    """A network that is loaded later can be freed, also if it lies in a cycle."""
    exempt_imported_objects()
    count = gc.get_freeze_count()
    knot = Knot()
    seen = weakref.ref(knot)
    exempt_imported_objects()
    assert gc.get_freeze_count() == count > 0
    del knot
    gc.collect()
    assert seen() is None


def test_threads_do_not_spin_long(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    limit_spinning()
    assert os.environ["GOMP_SPINCOUNT"] == SPIN_COUNT
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    limit_spinning()
    assert os.environ["GOMP_SPINCOUNT"] == "7"


def test_a_policy_of_the_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    limit_spinning()
    assert "GOMP_SPINCOUNT" not in os.environ
