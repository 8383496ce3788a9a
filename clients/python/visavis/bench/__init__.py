"""Load for a server, and what it did under it: the parts of `visavis bench`.

workload → channels → load → measurement, in turns with limit: rounds → report, plot.
"""
