"""Prefect flows: tables of contents of the analysis, no arithmetic."""
