"""Training scripts of other projects, tested unmodified, and what is known of each."""
