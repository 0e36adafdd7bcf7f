"""The report: what registrations have given, as one HTML file."""

from .writer import ReportWriter

__all__ = ["ReportWriter"]
