"""The tasks by name."""

from janusflow.evaluation.task import Task
from janusflow.evaluation.tasks import distances, round_trip, scenes
from janusflow.evaluation.tasks import judge as judging
from janusflow.evaluation.tasks import official_results as results
from janusflow.evaluation.tasks import vqa as answers

TASKS: dict[str, Task] = {
    "scenes": scenes.TASK,
    "scenes-vqa": answers.TASK,
    "judge": judging.TASK,
    "round-trip": round_trip.TASK,
    "geneval": results.GENEVAL,
    "dpg": results.DPG,
    "fid": distances.FID,
    "kid": distances.KID,
}
