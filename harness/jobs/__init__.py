"""Jobs: what runs in the ranks. One package each."""
