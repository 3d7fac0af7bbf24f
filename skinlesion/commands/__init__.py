"""The commands, one file each: `run(config)` reads, calls and writes."""
