"""Files of purchases: read, judged, compared with what is there, and what came of it told.

For `import` in a terminal and for the customers page alike.
"""
