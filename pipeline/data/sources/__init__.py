"""Data sets: each module turns one kind into a `Source` by its `read`; the module's name is the name of the kind."""
