"""`--job plan`: what a run takes, from programs that are compiled from shapes alone."""
