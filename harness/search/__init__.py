"""Many runs of one question: explore, generate and shrink, each over one `Trial` a run."""
