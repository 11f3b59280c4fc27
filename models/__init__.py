"""Networks, objectives and propagation rules: pure PyTorch, no files, no DVC."""
