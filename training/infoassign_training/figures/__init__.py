"""Pictures and the report: from the files of a run to what people look at."""
