"""What everything else uses: errors in one line, files, the command line, processes, memory."""
