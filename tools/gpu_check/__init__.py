"""Check of a device: paper presets for a few steps, and agreement of networks, walks and PAR with the CPU."""
