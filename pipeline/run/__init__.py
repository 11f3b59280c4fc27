"""How a stage runs: start and end, device and processes, resuming, files, errors."""
