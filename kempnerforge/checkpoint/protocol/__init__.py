"""Save, load, commit, choice, replacement and deletion: what happens in which order."""
