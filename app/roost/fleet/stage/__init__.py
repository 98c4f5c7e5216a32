"""Staging: what a host of ours consists of, put into the root folder of an image that is being built."""
