"""Files of purchases: read, checked, compared with the recorded rows, and reported on.

For both `import` in a terminal and the customers page.
"""
