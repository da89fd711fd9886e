"""Generated scenarios: drawn, run, judged, shrunk if they fail, and counted."""
