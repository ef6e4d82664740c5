"""Another set of the exercises, for an examination."""


def examination(name, notebook, seed):
    """The notebook."""
    return notebook
