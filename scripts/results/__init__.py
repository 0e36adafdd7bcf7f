"""What comes of registrations: measures, tables, pictures and files."""
