"""The processes between the supervisor and the ranks: a server, leaders, and tasks."""
