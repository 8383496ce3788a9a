"""`visavis pull`: keeps a model repository in step with a bucket, a hub, a registry or a folder.

A program of its own, beside the server, which reads no URL. Every step may be cut off at any
moment: what is visible is always a whole, checked version.
"""
