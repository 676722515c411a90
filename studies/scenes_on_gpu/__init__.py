"""The packaged model of scenes trained on one GPU, in minutes.

python -m studies.scenes_on_gpu.run --init-from MODEL --out OUT --seconds 200 200

`pool` draws the samples by processes and keeps them on the card, `network` evaluates batches of one
fixed shape, `graphs` replays losses and gradients of a step as one CUDA graph, `timed` ends with
its time, `joint` trains images and answers together, `few` distils the result to one, two and four
evaluations, `judge` scores them as it goes on.
"""
