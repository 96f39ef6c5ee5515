"""What people look at: charts, the report page and the results page, drawn from finished tables.

All of it is a projection: nothing reads it, and it can be deleted and made again.
"""
