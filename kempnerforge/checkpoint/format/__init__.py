"""Files and names on disk: how they are formatted and parsed."""
