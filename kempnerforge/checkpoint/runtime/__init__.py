"""Effects: files, locks, threads and connections."""
