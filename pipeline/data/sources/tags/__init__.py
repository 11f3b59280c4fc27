"""Tags of photographs as people have them: each module turns one layout into the same rows."""
