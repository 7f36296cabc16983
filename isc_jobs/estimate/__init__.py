"""What a run will take: counted from its settings, timed by measured and published rates. Nothing here runs a stage."""
