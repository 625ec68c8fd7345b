"""The figures of a report, one a module: `applies` says whether a comparison has it, `draw` what it shows."""
