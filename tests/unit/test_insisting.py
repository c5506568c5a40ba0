"""What works by itself, with nobody to tell that the database takes nothing now, insists on what it stores."""

from pathlib import Path

import pytest

CONTROLLER = Path(__file__).resolve().parents[2] / "controller"
# Whose end would be the controller's.
BY_THEMSELVES = ("builds/queue.py", "builds/attempt.py", "builds/progress.py", "builds/joining.py", "mqtt/inbox.py")


@pytest.mark.parametrize("name", BY_THEMSELVES)
def test_what_works_by_itself_stores_nothing_that_it_does_not_insist_on(name: str) -> None:
    code = (CONTROLLER / name).read_text()
    assert ".insist(" in code
    assert ".transact(" not in code
