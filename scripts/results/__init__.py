"""The results of registrations: measures, tables, pictures and files."""
