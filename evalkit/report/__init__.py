"""Stored runs as tables and pages."""
