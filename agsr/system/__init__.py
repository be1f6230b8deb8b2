"""Operating-system services: files, signals, memory, processors and cache folders."""
