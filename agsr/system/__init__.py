"""The operating system: files, signals, memory, processors and cache folders."""
