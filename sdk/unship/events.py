"""Define the wire contract: one frozen record per event that fleets, label sources and operators send.

The types are the single source of three things: what the codec accepts, what an emitter may build, and the JSON
Schemas that are published. Every string, list, object and number therefore carries its limit here, where it is seen
by all three. Limits are not taste: a joined prediction lives in memory for the whole join window, so an event
without a cap would let one producer choose the monitor's memory.

Building a record from Python does not check the limits (msgspec checks when it decodes); `unship.codec` is the border.
Unknown fields are ignored, so that a newer emitter can talk to an older monitor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct

TS_MS_MIN = 946_684_800_000
"""Earliest accepted time of an event: 2000-01-01T00:00:00Z. A time in seconds, read as milliseconds, lies before it."""

TS_MS_MAX = 4_102_444_800_000
"""Latest accepted time: 2100-01-01T00:00:00Z, in milliseconds since the epoch (UTC)."""

INTEGER_MAX = 2**53
"""Largest magnitude of any integer: beyond it JSON readers that use doubles would see another number."""

NAME_CHARS_MAX = 128
"""Longest id, name and label."""

TEXT_CHARS_MAX = 1024
ROW_MAX = 1_000_000
SLICES_MAX = 32
SLICE_NAME_CHARS_MAX = 64

Role: TypeAlias = Literal["live", "shadow", "holdback"]
Status: TypeAlias = Literal["live", "shadow", "holdback", "retired"]
Stage: TypeAlias = Literal["received", "verified", "staged", "serving", "refused", "left"]
Act: TypeAlias = Literal["approve", "reject", "rollback", "pin", "unpin", "hold", "resume", "release", "renew"]
RefusalCode: TypeAlias = Literal[
    "REGRESSION",
    "EQUIVOCATION",
    "BAD_SIGNATURE",
    "UNKNOWN_KEY",
    "WRONG_AUDIENCE",
    "UNSUPPORTED_SCHEMA",
    "UNREGISTERED_ARTIFACT",
    "QUARANTINED",
    "LOAD_FAILED",
    "EXPIRED",
    "STATE_MISSING",
    "STATE_CORRUPT",
    "STATE_UNSUPPORTED",
    "STATE_FOREIGN",
]

# Named building blocks. `from __future__ import annotations` keeps them readable in the classes below; msgspec
# evaluates them in this module's namespace.
PredictionId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)]
Label: TypeAlias = Annotated[str, Meta(max_length=NAME_CHARS_MAX)]
Artifact: TypeAlias = Annotated[str, Meta(max_length=256)]
Digest: TypeAlias = Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{1,64}(?!\n)$")]
"""Bytes have one digest, in one form of writing, because quarantine compares digests as text."""

Probability: TypeAlias = Annotated[float, Meta(ge=0.0, le=1.0)]
Integer: TypeAlias = Annotated[int, Meta(ge=-INTEGER_MAX, le=INTEGER_MAX)]
Natural: TypeAlias = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]
Row: TypeAlias = Annotated[int, Meta(ge=0, le=ROW_MAX)]
LatencyMs: TypeAlias = Annotated[float, Meta(ge=0.0)]
Text: TypeAlias = Annotated[str, Meta(max_length=TEXT_CHARS_MAX)]
Scalar: TypeAlias = bool | Integer | float | Text
ShortOutput: TypeAlias = Scalar | Annotated[list[Scalar], Meta(max_length=1000)]
"""An answer or a truth as it is kept: text beyond 1,024 characters is cut, with its SHA-256."""

LongText: TypeAlias = Annotated[
    str, Meta(description=f"text (of more than {TEXT_CHARS_MAX:,} characters the beginning and the SHA-256)")
]
WireScalar: TypeAlias = bool | Integer | float | LongText
Output: TypeAlias = WireScalar | Annotated[list[WireScalar], Meta(max_length=1000)]
"""What a model answered, and what turned out to be true: a scalar, or a list for rankings, as large as an event."""

Scores: TypeAlias = Annotated[dict[Label, Probability], Meta(max_length=1000)]
SliceValue: TypeAlias = Label | Integer | bool | None
"""None means that the slice is not known of this request: as if it were absent."""

Slices: TypeAlias = Annotated[
    dict[Annotated[str, Meta(max_length=SLICE_NAME_CHARS_MAX)], SliceValue], Meta(max_length=SLICES_MAX)
]
Epoch: TypeAlias = tuple[Natural, Natural, Natural]
"""[incarnation, ledger offset, index]; later commands compare greater."""

Card: TypeAlias = Annotated[str, Meta(max_length=2048)] | Annotated[dict[str, Any], Meta(max_length=64)]
TimeMs: TypeAlias = Annotated[
    int, Meta(ge=0, le=TS_MS_MAX, description="milliseconds since 1970-01-01T00:00:00Z, at most 2100-01-01")
]
EventTimeMs: TypeAlias = Annotated[
    int,
    Meta(
        ge=TS_MS_MIN,
        le=TS_MS_MAX,
        description="milliseconds since 1970-01-01T00:00:00Z, from 2000-01-01 to 2100-01-01",
    ),
]
At: TypeAlias = tuple[Annotated[str, Meta(max_length=249)], Natural, Natural, TimeMs]
"""[topic, partition, offset, append time in ms]: the position of a recorded line in the log."""

if TYPE_CHECKING:
    EventTime: TypeAlias = int | None
else:
    # The wire also allows RFC 3339 text. The codec replaces it by milliseconds before anybody sees the event, so
    # static types promise what holds everywhere behind the border: an integer or nothing.
    EventTime = (
        EventTimeMs
        | Annotated[str, Meta(max_length=64, description="RFC 3339", extra_json_schema={"format": "date-time"})]
        | None
    )


class WireRecord(Struct, frozen=True, gc=False, omit_defaults=True, tag_field="type"):
    """Carry the settings all wire records share; never instantiated.

    Records are frozen and hold no reference to themselves, so the cyclic collector need not track them: a join window
    of a million events then costs it nothing.
    """


class Reference(Struct, frozen=True, gc=False):
    """State a version's offline metric: the mean of a loss in [0, 1] over `n` outcomes."""

    mean: Probability
    n: Annotated[int, Meta(ge=1, le=INTEGER_MAX)]


Share: TypeAlias = Annotated[float, Meta(gt=0.0, le=0.5)]
Shares: TypeAlias = Annotated[dict[Name, Share], Meta(max_length=1)]
"""The part of all units, as a fraction, that a version answers while another one serves."""

UnitHash: TypeAlias = Annotated[int, Meta(ge=0, le=2**32 - 1)]
References: TypeAlias = Annotated[dict[Label, Reference], Meta(max_length=64)]


class Prediction(WireRecord, frozen=True, gc=False, kw_only=True, tag="prediction"):
    """Report what a version answered to one request (row of a batch, target).

    The same `id` may appear once per version: a shadow's answer is paired with the live one. Without `output` it is of
    use only where no loss needs it, as for engagement and latency; else the monitor rejects it.

    `unit_hash` is a hash of whom the answer was given to, such as a customer, where `Fleet.choose` chose by that.

    Example:
        >>> Prediction(id="p-1", model="fraud", version="v42", output=1, score=0.93).role
        'live'
    """

    id: PredictionId
    model: Name
    version: Name
    output: Output | None = None
    ts: EventTime = None
    row: Row = 0
    target: Label = ""
    score: Probability | None = None
    scores: Scores | None = None
    role: Role = "live"
    slices: Slices = {}
    latency_ms: LatencyMs | None = None
    unit_hash: UnitHash | None = None
    replica: Label | None = None
    epoch: Epoch | None = None
    artifact: Artifact | None = None
    at: At | None = None


class Feedback(WireRecord, frozen=True, gc=False, kw_only=True, tag="feedback"):
    """Report what turned out to be true for a prediction id; `truth` may be absent with `engagement` or `retract`.

    With `retract` the label of that prediction is taken back.
    """

    id: PredictionId
    truth: Output | None = None
    ts: EventTime = None
    model: Name | None = None
    row: Row = 0
    target: Label = ""
    source: Label = "default"
    engagement: Probability | None = None
    retract: bool = False
    at: At | None = None


class Deployment(WireRecord, frozen=True, gc=False, kw_only=True, tag="deployment"):
    """Announce that a version now serves a model as live, shadow or holdback, or not at all.

    A signed one has `audience`, `issued_ts`, `not_after_ts` and `nonce`, as a signed act does.
    """

    model: Name
    version: Name
    status: Status
    ts: EventTime = None
    previous: Name | None = None
    artifact: Digest | None = None
    reference: References | None = None
    card: Card | None = None
    audience: Name | None = None
    issued_ts: TimeMs | None = None
    not_after_ts: TimeMs | None = None
    nonce: Label | None = None
    at: At | None = None


class OperatorAct(WireRecord, frozen=True, gc=False, kw_only=True, tag="operator"):
    """Carry what a person ordered for a model, with the reason; the signature travels in the record's headers.

    `incarnation` goes with the act `renew`: the epochs of the model's commands begin with it from there on. The act is
    for one installation (`audience`) and for the time from `issued_ts` to `not_after_ts`, and it is followed once
    (`nonce`).
    """

    act: Act
    model: Name
    reason: Text
    by: Name
    version: Name | None = None
    to: Name | None = None
    decision: Label | None = None
    override: bool = False
    incarnation: Natural | None = None
    ts: EventTime = None
    audience: Name | None = None
    issued_ts: TimeMs | None = None
    not_after_ts: TimeMs | None = None
    nonce: Label | None = None
    at: At | None = None


class Ack(WireRecord, frozen=True, gc=False, kw_only=True, tag="ack"):
    """Acknowledge how far a replica has come with an epoch, what it serves, and why it refused if it did.

    The versions that answer a share of the requests are listed where a command asked for one, none of them or some.
    """

    model: Name
    replica: Name
    boot: Label
    epoch: Epoch
    stage: Stage
    serving: Name | None = None
    beside: Annotated[tuple[Name, ...], Meta(max_length=1)] | None = None
    code: RefusalCode | None = None
    ts: EventTime = None
    at: At | None = None


Event: TypeAlias = Prediction | Feedback | Deployment | OperatorAct | Ack

EVENT_TYPES: dict[str, type[Event]] = {
    "prediction": Prediction,
    "feedback": Feedback,
    "deployment": Deployment,
    "operator": OperatorAct,
    "ack": Ack,
}
"""The `type` of a line or record -> its class, in the contract's order."""
