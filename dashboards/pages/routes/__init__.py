"""The pages: each module declares its addresses as ``ROUTER``. Fragments of a page have ``/parts/`` in theirs."""
