"""The processes between the supervisor and the ranks: a server, job launchers, and rank shims."""
