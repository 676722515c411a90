"""The tasks by name."""

from janusflow.evaluation.task import Task
from janusflow.evaluation.tasks import distances, judge, official_results, round_trip, scenes, vqa

TASKS: dict[str, Task] = {
    "scenes": scenes.TASK,
    "scenes-vqa": vqa.TASK,
    "judge": judge.TASK,
    "round-trip": round_trip.TASK,
    "geneval": official_results.GENEVAL,
    "dpg": official_results.DPG,
    "fid": distances.FID,
    "kid": distances.KID,
}
