"""Images, and the random views that a step makes of them."""
