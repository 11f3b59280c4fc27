"""A folder for each method (network, losses, training, knobs) and what they share: pure PyTorch, no files, no DVC."""
