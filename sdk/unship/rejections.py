"""List every reason for which an event is refused or set aside: one closed vocabulary.

Bad input is data. Every input that is not used is counted under exactly one of these codes, which are also the field in
the dead-letter topic and the row in the reference. A reason that is not in the list
does not exist, so nothing can be lost in silence.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class RejectCode(StrEnum):
    """Name why an event was not used; `meaning` is the sentence that the reference prints.

    Example:
        >>> RejectCode("BAD_TIME").meaning
        'A time is not RFC 3339 or integer milliseconds, or lies outside 2000 to 2100.'
    """

    meaning: str

    def __new__(cls, code: str, meaning: str) -> RejectCode:
        """Attach the sentence to the member, so that the code and its meaning cannot drift apart."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    # Found while decoding: the bytes never became an event.
    TOO_LARGE = "TOO_LARGE", "The bytes exceed the size limit of an event, or a packed record holds too many."
    NOT_UTF8 = "NOT_UTF8", "The bytes are not UTF-8."
    BAD_JSON = "BAD_JSON", "The text is not one JSON value: malformed, cut off, empty, NaN, or more than one value."
    TOO_DEEP = "TOO_DEEP", "Arrays and objects are nested more deeply than the limit."
    UNKNOWN_TYPE = "UNKNOWN_TYPE", "The `type` is absent, not a string, or none that is known or expected here."
    BAD_EVENT = "BAD_EVENT", "A required field is absent, or a field has the wrong type, length or word."
    BAD_TIME = "BAD_TIME", "A time is not RFC 3339 or integer milliseconds, or lies outside 2000 to 2100."
    NUMBER_OUT_OF_RANGE = "NUMBER_OUT_OF_RANGE", "A number lies outside the range of its field."

    # Found by the join and the fold: a valid event that does not count, or not with its own values.
    FUTURE_TS = (
        "FUTURE_TS",
        "The event's time lies more than a day after its append time, or in a recording after the lines around it.",
    )
    DUPLICATE = "DUPLICATE", "The same prediction was seen before, with the same output."
    CONFLICTING_PREDICTION = "CONFLICTING_PREDICTION", "The same prediction was seen before, with another output."
    DUPLICATE_FEEDBACK = "DUPLICATE_FEEDBACK", "The same truth for the same prediction was seen before."
    CONFLICTING_FEEDBACK = (
        "CONFLICTING_FEEDBACK",
        "Another truth for the same prediction was seen before and is kept.",
    )
    UNMATCHED_FEEDBACK = "UNMATCHED_FEEDBACK", "There is no prediction that this feedback can belong to."
    AFTER_MATURITY = "AFTER_MATURITY", "The truth came after its cohort was judged; it feeds label statistics only."
    LATE_FEEDBACK = (
        "LATE_FEEDBACK",
        "The truth came after the label horizon, by no more than `labels.early`.",
    )
    REVISED_LATE = (
        "REVISED_LATE",
        "The label would replace or take back an earlier one after its cohort was judged; it changes nothing.",
    )
    RETRACTED = (
        "RETRACTED",
        "The feedback takes back a label, where none may be taken back or there is none; it changes nothing.",
    )
    ROLE_MISMATCH = "ROLE_MISMATCH", "The prediction's role contradicts the status of its version's deployment."
    STILL_SERVED = "STILL_SERVED", "The prediction comes from a version that was rolled back; it is judged no more."
    MISSING_SCORE = "MISSING_SCORE", "A loss needs a score or scores that the prediction does not carry."
    MISSING_LATENCY = "MISSING_LATENCY", "The loss `latency` needs a latency that the prediction does not carry."
    UNUSABLE_TRUTH = "UNUSABLE_TRUTH", "The truth is not of the kind that the model's target or loss needs."
    UNUSABLE_OUTPUT = (
        "UNUSABLE_OUTPUT",
        "The answer is not of the kind that the model's target needs: for a binary one a number that is no class.",
    )
    STALE_DEPLOYMENT = "STALE_DEPLOYMENT", "The deployment is older than one already known for the model."
    DUPLICATE_DEPLOYMENT = "DUPLICATE_DEPLOYMENT", "The deployment repeats what is already known."
    DUPLICATE_ACT = "DUPLICATE_ACT", "The operator's act repeats one that is already known."
    CLOCK_AHEAD = (
        "CLOCK_AHEAD",
        "The record was appended by a clock more than 10 minutes ahead of the monitor's; it is used, and counts as "
        "appended when the monitor first read it.",
    )
    UNSIGNED_ACT = "UNSIGNED_ACT", "The operator's act is not signed by a trusted operator's key."
    UNSIGNED_DEPLOYMENT = (
        "UNSIGNED_DEPLOYMENT",
        "The deployment is not signed by a trusted deployer's or operator's key, and the model's `policy.deployments` "
        "is `signed`; it changes and announces nothing.",
    )
    ACT_EXPIRED = (
        "ACT_EXPIRED",
        "The signed act or deployment was appended outside its time, states none, or one of more than an hour.",
    )
    ACT_REPEATED = "ACT_REPEATED", "The signed act or deployment has a nonce that was seen before, or none."
    WRONG_AUDIENCE = "WRONG_AUDIENCE", "The act or deployment was signed for another installation."
    FORGED_CONTROL = (
        "FORGED_CONTROL",
        "A record of `control` is not signed by a trusted controller for its model and this audience; it is ignored.",
    )
    MODEL_LIMIT = "MODEL_LIMIT", "The event would bring in more models than the configured limit."
    VERSION_LIMIT = "VERSION_LIMIT", "The event would bring in more versions of a model than the configured limit."
    REQUEST_LIMIT = (
        "REQUEST_LIMIT",
        "The request (id, row, target) has more versions or models, or more labels, than are kept of one at a time.",
    )
    REFERENCE_IMPLAUSIBLE = (
        "REFERENCE_IMPLAUSIBLE",
        "The deployment's reference is worse than the version's own first 1,000 outcomes by more than `worse_by`.",
    )
    REPLICA_LIMIT = "REPLICA_LIMIT", "The event comes from more replicas of a model than are followed at a time."
    MISROUTED = (
        "MISROUTED",
        "The event is in another partition than its id belongs to; with kcat and other librdkafka clients set "
        "partitioner=murmur2_random, as Java's and this library's clients do.",
    )
    HOLE = "HOLE", "A record was gone from its topic, by retention or by deletion, before the monitor had read it."
    FOREIGN_BATCH = (
        "FOREIGN_BATCH",
        "A batch in the ledger was joined under another configuration, or is of another incarnation or partition.",
    )
    GAP = "GAP", "A batch in the ledger leaves out what came before it; its range is read again."
    NOT_JUDGED = "NOT_JUDGED", "The outcome belongs to a version or role that is not judged at this time."


DECODING_CODES: frozenset[RejectCode] = frozenset(
    {
        RejectCode.TOO_LARGE,
        RejectCode.NOT_UTF8,
        RejectCode.BAD_JSON,
        RejectCode.TOO_DEEP,
        RejectCode.UNKNOWN_TYPE,
        RejectCode.BAD_EVENT,
        RejectCode.BAD_TIME,
        RejectCode.NUMBER_OUT_OF_RANGE,
    }
)
"""The codes the codec gives; the others are given by the join and the fold."""


class Rejection(Struct, frozen=True, gc=False):
    """Carry the code of a refused event, and where and what was wrong.

    `detail` holds paths, types and sizes, never values of the event: it is written to logs, pages and the dead-letter
    topic, and an event may hold personal data.

    Example:
        >>> Rejection(RejectCode.TOO_LARGE, "65540 bytes > limit 65536 bytes").code
        <RejectCode.TOO_LARGE: 'TOO_LARGE'>
    """

    code: RejectCode
    detail: str = ""
