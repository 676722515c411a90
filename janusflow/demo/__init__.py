"""A page to try a model in a browser: `janusflow demo`.

`wishes` says what a visitor may ask for, `work` does it step by step, `page` shows it, `server`
binds it to an address. Only the last two know gradio.
"""
