"""KempnerForge checkpoints: distributed checkpoints for PyTorch training that survive crashes."""
