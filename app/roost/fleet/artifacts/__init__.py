"""What jobs run from: the engine tree, the agent tree, and the images made of them.

Every artifact is named by a hash of all that went into it, resolved package versions included, so that one that is
there already is never made again, and one that changed never hides behind an old name.
"""
