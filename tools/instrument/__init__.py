"""The bars that the bundled scenes and the compact profile are held to: whether they can tell methods apart."""
