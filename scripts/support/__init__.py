"""What everything else stands on: errors of one line, files, the command line, processes."""
