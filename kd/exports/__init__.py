"""What others ask for, made from the manifests: a crate, a statement, checklists, a model folder.

Nothing here is a source of its own: every value is read from manifests whose chain was verified.
"""
