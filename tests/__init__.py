"""Tests; a package so that they share helpers and find the repository root."""
