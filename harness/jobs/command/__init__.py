"""A user's own training command. What runs in its processes needs the standard library only: they
belong to the user's interpreter, which may not have the harness's packages."""
