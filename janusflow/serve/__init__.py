"""An OpenAI-compatible server: `janusflow serve`.

`schemas` defines the requests, `worker` runs one job at a time from a bounded queue,
`image_requests` and `answers` are the jobs, `app` holds the routes, and `server` listens. Only the
last two import web libraries.
"""
