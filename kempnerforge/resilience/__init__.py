"""What a training loop needs to end and to begin again: shutdown by signal, choice on resume."""
