"""The commands whose options depend on no recipe, a module each: parsing, printing; the work is elsewhere."""
