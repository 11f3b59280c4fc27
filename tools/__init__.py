"""What people run around the pipeline: studies, tables, benchmarks."""
