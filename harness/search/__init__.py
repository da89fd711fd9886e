"""Many runs for one question: explore, generate and shrink, each with one `Trial` per run."""
