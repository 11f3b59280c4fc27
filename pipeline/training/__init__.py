"""The training loop, and the weights of networks on disk."""
