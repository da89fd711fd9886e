"""Saving, loading, committing, choosing, replacing and deleting: what happens in which order."""
