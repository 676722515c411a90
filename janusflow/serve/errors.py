"""Error responses for requests that cannot be fulfilled."""

from collections.abc import Sequence

from janusflow.utils.http_guard import error_body
from janusflow.utils.text import printable

KINDS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class InvalidRequest(ValueError):
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


def of_validation(errors: Sequence[dict]) -> InvalidRequest:
    """Returns the first of pydantic's errors as a sentence: what came, what to do."""
    error = max(errors, key=lambda one: len(one["loc"]))  # of a union's, that of the nearest member
    places = [str(part) for part in error["loc"][1:]]
    members = ("str", "constrained-str")  # pydantic's names of what a union is made of
    plain = [p for p in places if p not in members and not p.startswith("list[")]
    name = printable(".".join(plain), 80)
    shown = printable(repr(error.get("input")), 60)
    reason = error["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    match error["type"]:
        case "json_invalid":
            return InvalidRequest("the body is not valid JSON; send a JSON object", code="bad_json")
        case "extra_forbidden":
            said = f"{name} is not supported by this server; leave it out"
        case "missing":
            said = f"{name or 'the body'} is missing; give it"
        case "value_error":
            said = f"{name} {reason}".strip()
        case _ if not name:
            return InvalidRequest("the body is no JSON object; send one, as application/json")
        case _:
            said = f"{name or 'the body'} is {shown}; {reason}"
    return InvalidRequest(said, param=name or None, code=error["type"])
