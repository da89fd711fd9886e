"""A user's own training command: what it is, how it is started and watched, and what it leaves."""
