"""End to end: the real bootstrap in disposable hosts."""

import pytest

pytest.register_assert_rewrite("tests.e2e.story")
