"""An OpenAI-compatible server: `janusflow serve`.

`schemas` says what may be asked, `worker` does one job at a time from a bounded queue, `images` and
`answers` are the jobs, `app` holds the routes, `server` listens. Only the last two know the web.
"""
