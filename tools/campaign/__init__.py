"""What the pipeline stands: kills, a full disk, damage, bad inputs and two runs at once, tried and counted."""
