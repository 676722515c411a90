"""The shipped model of scenes trained on one GPU, in minutes: nothing of a step waits for the CPU.

python -m studies.scenes_on_gpu.run --init-from MODEL --out OUT --seconds 270 260

`pool` draws the samples by processes and keeps them on the card, `network` evaluates batches of one
fixed shape, `graphs` replays a whole step as one CUDA graph, `timed` ends with its time, `joint`
trains images and answers together, `few` distils the result to one, two and four evaluations.
"""
