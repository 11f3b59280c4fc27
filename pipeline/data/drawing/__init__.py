"""Drawing of the bundled scenes."""
