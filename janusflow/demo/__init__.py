"""A web page to try a model in a browser: `janusflow demo`.

`requests` defines what a visitor may ask for, `actions` does it step by step, `page` and `parts`
show it, `jobs` are what the buttons start, `protection` guards it, and `launch` serves it.
"""
