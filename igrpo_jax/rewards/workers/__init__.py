"""Processes that grade, so that nothing an item does reaches the trainer but data of a fixed form."""
