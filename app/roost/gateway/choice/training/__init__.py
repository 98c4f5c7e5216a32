"""Makes routers: examples from templates, files and the fleet's own models; a fit; how good it is.

Runs on the controller, never in the gateway: it needs numpy.
"""
