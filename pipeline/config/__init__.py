"""Configuration: what may be set, where values come from, and what each stage is told."""
