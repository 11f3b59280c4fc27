"""Background-aware activation maps with an online and a target network (BAO, Fujimori et al.)."""
