"""What commands show: tables on stdout, progress and summaries on stderr."""
