"""Error responses for requests that cannot be fulfilled."""

import json
import re
from collections.abc import Sequence

from janusflow.utils.http_guard import error_body
from janusflow.utils.safe_io import repeated
from janusflow.utils.text import printable

SUBJECT = re.compile("^(Input|String|List|Dictionary) should")
TAG = re.compile(r"(\.\d+)\.(text|image_url)\.")  # of the parts of a message
KINDS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(ValueError):
    """A request that cannot be fulfilled, with the parameter at fault and OpenAI's error code."""

    def __init__(
        self, message: str, param: str | None = None, code: str | None = None, status: int = 400
    ):
        super().__init__(message)
        self.param, self.code, self.status = param, code, status


def body(status: int, message: str, param: str | None = None, code: str | None = None) -> dict:
    """Returns the error as OpenAI's error object."""
    kind = KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    return error_body(message, kind, param, code)


def check_keys(content: bytes) -> None:
    """Raises ApiError for a JSON object with a key that comes twice, of which JSON's readers
    keep the last; what is no JSON is left to them.
    """

    def once(pairs: list[tuple[str, object]]) -> dict:
        if (again := repeated(pairs)) is not None:
            name = printable(again, 40)
            raise ApiError(f"{name} came twice; give it once", name, "duplicate_key")
        return dict(pairs)

    try:
        json.loads(content, object_pairs_hook=once)
    except ApiError:
        raise
    except (ValueError, RecursionError):
        return


def of_validation(errors: Sequence[dict]) -> ApiError:
    """Returns the first of pydantic's errors as a sentence: what came, what to do."""
    error = max(errors, key=lambda one: len(one["loc"]))  # of a union's, that of the nearest member
    name = printable(_place([str(part) for part in error["loc"][1:]]), 80)
    shown = printable(repr(error.get("input")), 60)
    reason = SUBJECT.sub("it should", error["msg"].removeprefix("Value error, "))
    reason, context = reason.split(" after validation")[0], error.get("ctx", {})
    match error["type"]:
        case "json_invalid":
            return ApiError("the body is not valid JSON; send a JSON object", code="bad_json")
        case "extra_forbidden":
            said = f"{name} is not supported by this server; leave it out"
        case "missing":
            said = f"{name or 'the body'} is missing; give it"
        case "union_tag_invalid":
            tags = f"is {context['tag']!r:.40}; expected {context['expected_tags']}"
            return ApiError(f"{name}.type {tags}", f"{name}.type", error["type"])
        case "union_tag_not_found":
            return ApiError(f"{name}.type is missing; give it", f"{name}.type", "missing")
        case "model_attributes_type" if name:
            said = f"{name} is {shown}; expected a JSON object"
        case "value_error":
            said = f"{name} {reason}".strip()
        case _ if not name:
            return ApiError("the body is no JSON object; send one, as application/json")
        case _:
            said = f"{name or 'the body'} is {shown}; {reason}"
    return ApiError(said, param=name or None, code=error["type"])


def _place(parts: Sequence[str]) -> str:
    """Returns the name of a parameter, without what pydantic calls the members of unions."""
    members = ("str", "constrained-str")
    named = ".".join(p for p in parts if p not in members and not p.startswith("list["))
    return TAG.sub(r"\1.", named)
