"""What the tasks of lmms-eval in this folder call: the small world's images and exact match."""

from PIL import Image

from janusflow.scenes.questions import pieces, question
from janusflow.scenes.shapes import render


def picture(doc):
    asked = question(doc["split"], doc["index"], doc["template"])
    return [Image.fromarray(render(asked.scene.objects))]


def messages(doc):
    shown = {"type": "image", "url": picture(doc)[0]}
    return [{"role": "user", "content": [shown, {"type": "text", "text": doc["question"]}]}]


def score(doc, results):
    return {"exact": float(pieces(results[0]) == pieces(doc["answer"]))}
