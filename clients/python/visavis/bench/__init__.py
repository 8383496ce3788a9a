"""Puts a server under load and measures it: the parts of `visavis bench`.

workload → channels → load → measurement, alternating with limit: rounds → report, plot.
"""
