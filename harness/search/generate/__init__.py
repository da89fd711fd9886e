"""Scenarios that write themselves: drawn, run, judged, shrunk where they fail, and counted."""
