"""The web application of ``metaloom ui``: pages rendered on the server, from the records of a store.

A page is one file in ``routes`` with a ``ROUTER``, and one in ``templates``. Both are found by being there.
"""
