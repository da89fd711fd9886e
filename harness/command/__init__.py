"""A user's own training command, tested from outside: nothing is added to it."""
