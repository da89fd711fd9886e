"""Makes `pytest scenarios/` run scenarios."""

pytest_plugins = ["harness.pytest_plugin"]
