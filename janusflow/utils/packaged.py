"""The models in the package by name, with what each is; imports nothing of ours, which is quick."""

from pathlib import Path

DEFAULT = "janusflow/scenes"
WEIGHTS = Path(__file__).parent.parent / "weights"
ABOUT = {
    "janusflow/scenes": "JanusFlow for the small world of shapes",
    "janusflow/scenes-few": "the same in 4, 2 or 1 network evaluations",
    "janusflow/scenes-edit": "edits images of the small world as it is told",
    "janusflow/scenes-pro": "Janus-Pro for the same world",
    "janusflow/emoji": "JanusFlow for emoji of 64 pixels",
}
PACKAGED = {name: WEIGHTS / name.removeprefix("janusflow/") for name in ABOUT}
