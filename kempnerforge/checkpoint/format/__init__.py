"""Files and names on disk: how they are formatted, and how they are recognised again."""
