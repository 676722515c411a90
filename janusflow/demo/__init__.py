"""A page to try a model in a browser: `janusflow demo`.

`requests` says what a visitor may ask for, `worker` does it step by step, `page` and its `parts`
show it, `jobs` are what its buttons start, `protection` stands before it, `server` binds it to an
address.
"""
