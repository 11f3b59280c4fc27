"""Networks that several methods build on, and how weights are loaded into them."""
