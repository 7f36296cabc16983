"""What a run is: settings, pipeline, stage specifications, keys, errors. Pure values, no input or output."""
