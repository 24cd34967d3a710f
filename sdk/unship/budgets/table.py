"""List every limit on what somebody outside can name or send: the one table that code, documentation and `check` read.

A limit that is reached never ends a program and never loses anything in silence: what has no place is counted under the
code of its row, and the row gives the rule by which places are free again. A module reads its limit from its row, so
that no number is written twice.
"""

from __future__ import annotations

from msgspec import Struct

KIB, MIB, GIB = 2**10, 2**20, 2**30


class Budget(Struct, frozen=True, kw_only=True):
    """Bound one thing that is named or sent from outside.

    `limit` counts `unit`. `beyond` is the code (`unship.rejections`) that counts what has no
    place, or what becomes of it. `back` is the rule
    by which places are free again, and `why` the arithmetic. `bytes` is the same limit in bytes, where it has one, and
    `key` the key of `limits` in `unship.yaml` that sets another value.
    """

    what: str
    limit: int
    unit: str
    beyond: str
    back: str
    why: str
    bytes: int | None = None
    key: str | None = None


# Names that are kept by the fold, for each ledger partition in the order of the ledger.

MODELS = Budget(
    what="models that are neither in the configuration nor deployed",
    limit=200,
    unit="models of a ledger partition",
    beyond="MODEL_LIMIT",
    back="models without a prediction for their label horizon are forgotten when another one needs a place",
    why="a model takes 150 KB with 50 slices, and as much for each version that is judged as well: 200 models are 30 "
    "to 270 MB; a fleet with more names them in `models`",
    bytes=270 * MIB,
    key="models",
)
FORGOTTEN_MODELS = Budget(
    what="forgotten models whose next decision continues the chain of those before",
    limit=1_000,
    unit="models of a ledger partition",
    beyond="the one that was forgotten first begins a new chain",
    back="when the model appears again",
    why="1,000 names and digests are 200 KB",
    bytes=200 * KIB,
)
VERSIONS = Budget(
    what="versions of a model without a deployment that neither serve nor served",
    limit=200,
    unit="versions of a model, in all roles",
    beyond="VERSION_LIMIT",
    back="a version is forgotten after the model's label horizon without an answer",
    why="200 versions of at most 128 characters and their facts are about 200 KB of a model",
    bytes=200 * KIB,
    key="versions",
)
DEPLOYED_MODELS = Budget(
    what="models that are not in the configuration, and were deployed or ordered by an operator",
    limit=1_000,
    unit="models of a ledger partition",
    beyond="MODEL_LIMIT",
    back="when one is needed, from the model that was silent for longest, after its label horizon; none that is held, "
    "pinned or has a version in quarantine",
    why="1,000 models of 150 KB to 1.3 MB, as above, are 150 MB to 1.3 GB; name models in `models`, or require signed "
    "deployments",
    bytes=1_300 * MIB,
)
DEPLOYED_VERSIONS = Budget(
    what="versions of a model that were deployed, serve or served",
    limit=1_000,
    unit="versions of a model",
    beyond="VERSION_LIMIT",
    back="with each newer one, from the oldest deployment that neither serves, nor served, nor is judged, nor is in "
    "quarantine",
    why="1,000 versions and their facts are about 1 MB of a model",
    bytes=MIB,
)
JUDGED = Budget(
    what="versions that are judged next to the live one",
    limit=8,
    unit="versions of a model",
    beyond="NOT_JUDGED",
    back="at each cohort: deployed ones first, then those with most outcomes in the newest closed cohort",
    why="8 versions with 50 slices each take 150 KB each, 1.2 MB of a model; those that answer live have rows for "
    "up to 8 label sources as well, 11 MB of a model at most",
    bytes=11 * MIB,
)
REPLICAS = Budget(
    what="replicas of a model",
    limit=1_000,
    unit="replicas of a model",
    beyond="REPLICA_LIMIT",
    back="an hour after its last ack or answer, or when a new one comes: then the one that is silent for longest "
    "leaves, first of those that lasted for less than ten minutes",
    why="1,000 replicas of about 400 bytes are 400 KB of a model",
    bytes=400 * KIB,
    key="replicas",
)
REPLICAS_OF_ALL = Budget(
    what="replicas of all models",
    limit=10_000,
    unit="replicas of a ledger partition, and of a pair of source partitions",
    beyond="REPLICA_LIMIT",
    back="as above; those of models that are not in the configuration leave first",
    why="10,000 replicas of about 400 bytes are 4 MB",
    bytes=4 * MIB,
)
VERSIONS_OF_REPLICA = Budget(
    what="versions that are remembered of a replica, as loaded or as refused",
    limit=20,
    unit="versions of a replica",
    beyond="the oldest is forgotten",
    back="with each newer one",
    why="20 names of at most 128 characters are 3 KB of a replica that loads a new version all the time",
    bytes=3 * KIB,
)
EARLIER = Budget(
    what="earlier live versions that may be gone back to, with their records, and as many holdback and shadow versions",
    limit=20,
    unit="versions of a model",
    beyond="the oldest is forgotten",
    back="with each newer one",
    why="20 records of 5,000 outcomes as sums by slice are 1 MB of a model",
    bytes=MIB,
)
LABEL_SOURCES = Budget(
    what="label sources of a model",
    limit=8,
    unit="sources of a model",
    beyond="counted as `__other__`",
    back="listed ones (`labels.sources`) stay; of others one with a twentieth of the newest 1,000 labels takes the "
    "place of one with less than half as many, unless an alarm was raised",
    why="a row for each source left out: 9 times the rows of the slices",
)
SLICE_VALUES = Budget(
    what="watched values of a model's slices, `slices.cap` of the configuration",
    limit=50,
    unit="values of a model, of all dimensions",
    beyond="counted as `__other__`",
    back="never: the first to appear stay",
    why="50 rows for each label source left out: 450 rows of about 1 KB for each loss",
    bytes=450 * KIB,
)
UNITS = Budget(
    what="units (`unit_hash`) that a comparison distinguishes",
    limit=65_535,
    unit="units of an arm in a cohort",
    beyond="two units of one number count as one",
    back="with the next cohort",
    why="16 bits hold the number of a unit, in the window and in the ledger; the units that an arm answered so far set "
    "4,096 bits of each stream: 1 KB for both arms, 52 KB with 50 slices, for 8 versions that answer live 830 KB of a "
    "model, on top of what these take",
    bytes=830 * KIB,
)
CONTROLS = Budget(
    what="deployments and acts of an embedded log or a recording that are remembered to drop repeats",
    limit=10_000,
    unit="digests",
    beyond="the oldest is forgotten",
    back="with each newer one",
    why="10,000 digests of 64 characters are 1 MB",
    bytes=MIB,
)

# What is kept of one request (id, row, target), by its records in one interval alone.

VERSIONS_OF_REQUEST = Budget(
    what="versions of a model that answer one request, each with its first prediction",
    limit=16,
    unit="versions of a model, in an eighth of the label horizon or of `labels.early`, whichever is longer",
    beyond="REQUEST_LIMIT",
    back="with the next interval",
    why="at most 17 intervals are within reach of a label: it joins 16 versions after 272 steps",
)
MODELS_OF_REQUEST = Budget(
    what="models without a section in the configuration that answer one request",
    limit=16,
    unit="models, in the same interval",
    beyond="REQUEST_LIMIT",
    back="with the next interval",
    why="a label that names no model joins the predictions of 16 of them, and of those that are configured",
)
LABELS_OF_REQUEST = Budget(
    what="labels of one request that name the same model, or none",
    limit=8,
    unit="labels, in an eighth of the longest `labels.early`",
    beyond="REQUEST_LIMIT",
    back="with the next interval",
    why="a prediction meets at most 9 x 8 labels of either kind that came ahead of it",
)

LABEL_JOINS = Budget(
    what="what one label is joined with besides its first prediction",
    limit=7 * KIB,
    unit="bytes of outcomes and of their pairs in the ledger",
    beyond="REQUEST_LIMIT",
    back="with the next label",
    why="64 labels of one packed record are 448 KiB of one ledger record; 7 KiB are about 30 outcomes",
    bytes=7 * KIB,
)
SHADOWS_OF_REQUEST = Budget(
    what="shadows that the live answer to one request is compared with",
    limit=8,
    unit="shadow versions",
    beyond="not compared",
    back="with the next request",
    why="as many as are judged at a time",
)

# Records.

SLICE_TEXT = Budget(
    what="the value of a slice",
    limit=64,
    unit="characters",
    beyond="cut, and marked by a digest of all of it",
    back="at once",
    why="longer values are texts, not slices; 8 of 256 bytes are 2 KB of a row",
    bytes=256,
)
LEDGER_RECORD = Budget(
    what="a ledger record of what was joined",
    limit=512 * KIB,
    unit="bytes",
    beyond="the batch ends",
    back="with the next batch",
    why="4,096 outcomes of 128 bytes; a row counts as its numbers at 8 bytes each and its text, and a model as 1 KiB",
    bytes=512 * KIB,
)
EVENT = Budget(
    what="an event",
    limit=64 * KIB,
    unit="bytes",
    beyond="TOO_LARGE",
    back="at once",
    why="1,000 scores of at most 64 bytes fit",
    bytes=64 * KIB,
)
EVENT_DEPTH = Budget(
    what="nesting of an event",
    limit=8,
    unit="levels",
    beyond="TOO_DEEP",
    back="at once",
    why="a flat event has depth 1; 8 leave room for a model card",
)
OTHER_LINE = Budget(
    what="a line of a recording that is no event",
    limit=16 * MIB,
    unit="bytes",
    beyond="TOO_LARGE",
    back="at once",
    why="a ledger batch of 4,096 outcomes of 1 KiB takes 4 MiB, as text 6 MiB",
    bytes=16 * MIB,
)
PACKED_EVENTS = Budget(
    what="events of a packed record",
    limit=64,
    unit="events, all together as large as one event may be",
    beyond="TOO_LARGE",
    back="at once",
    why="six bits hold the index of an event in its record",
    bytes=64 * KIB,
)
COMMAND = Budget(
    what="a command",
    limit=64 * KIB,
    unit="bytes",
    beyond="refused by every replica",
    back="at once",
    why="500 quarantined versions with artifacts take about 60 KB; the newest 500 are commanded",
    bytes=64 * KIB,
)
LINE = Budget(
    what="a line of a recording",
    limit=32 * MIB,
    unit="bytes",
    beyond="split, and rejected in pieces",
    back="at once",
    why="twice the largest line that is no event",
    bytes=32 * MIB,
)
DAMAGED_LINES = Budget(
    what="damaged lines of a recording of a log",
    limit=1_000,
    unit="lines",
    beyond="the command ends and names the first of them",
    back="with the next command",
    why="a recording with more is another file",
)
NONCES = Budget(
    what="acts and signed deployments that are remembered to refuse repeats",
    limit=10_000,
    unit="nonces of a ledger partition",
    beyond="the oldest is forgotten",
    back="a day after the time of the act",
    why="only a trusted key adds one; 10,000 of 200 bytes are 2 MB",
    bytes=2 * MIB,
)
STATUS_RECORD = Budget(
    what="the status of a model",
    limit=64 * KIB,
    unit="bytes of a record",
    beyond="cut: the record states how many replicas and versions are not shown",
    back="with the next status",
    why="about 300 replicas of 200 bytes fit; 200 unlisted models are 13 MB of one topic that is compacted",
    bytes=64 * KIB,
)
REPLICA_CHANGES = Budget(
    what="changes at the replicas of a model in a ledger record",
    limit=300,
    unit="changes",
    beyond="in the next record",
    back="with the next record",
    why="300 changes with three names of 128 characters, of up to 4 bytes each, are 500 KB; usual names make 45 KB",
    bytes=512 * KIB,
)
COUNTS = Budget(
    what="changes of counts in a batch",
    limit=16_000,
    unit="changes",
    beyond="the batch ends",
    back="with the next batch",
    why="16,000 changes of 32 bytes are a ledger record",
    bytes=500 * KIB,
)
INCIDENTS = Budget(
    what="open incidents of a model",
    limit=32,
    unit="incidents of a model",
    beyond="the oldest one is resolved, notices first",
    back="when one is resolved: by health, by a switch that replicas obey, or by an operator's act",
    why="32 alerts of less than 2 KB are 64 KB of a model",
    bytes=64 * KIB,
)
ALERTS_WAITING = Budget(
    what="incidents that wait for a sink of alerts",
    limit=1_000,
    unit="incidents of a sink",
    beyond="the one that waits longest is dropped and reported",
    back="when the sink takes one",
    why="1,000 alerts of less than 2 KB are 2 MB; an incident that changes while it waits takes one place",
    bytes=2 * MIB,
)

# Memory.

WINDOW = Budget(
    what="predictions in memory that wait for their labels, in a worker on Kafka",
    limit=GIB,
    unit="bytes",
    beyond="on disk, in the files of the window",
    back="when a prediction leaves the label horizon",
    why="1 GiB holds about 1.6 million predictions of 650 bytes; texts and lists that were answered count as well, and "
    "stay in memory: the numbers of more predictions leave it instead",
    bytes=GIB,
    key="window",
)
RECORDING = Budget(
    what="what is unpacked of a recording",
    limit=4 * GIB,
    unit="bytes",
    beyond="the command ends with exit code 2",
    back="with the next command",
    why="4 GiB are about 20 million lines of 200 bytes",
    bytes=4 * GIB,
    key="recording",
)

FLEET_QUEUE = Budget(
    what="what waits in the queue of a fleet or a label source, `queue_bytes`",
    limit=64 * MIB,
    unit="bytes in the memory of the service, roughly",
    beyond="dropped, and counted as `QUEUE_FULL` by the library",
    back="when events are written",
    why="10,000 common events of 1 KiB are 10 MiB; 600 events with 1,000 scores each take all of it",
    bytes=64 * MIB,
)
HANGING_LOADS = Budget(
    what="loads of a replica that have not returned after `load_timeout`",
    limit=4,
    unit="loads, each of another version",
    beyond="not started, and counted as `LOADS_HANG` by the library",
    back="when one returns, or with the next process",
    why="each has a thread and what it has loaded so far: four models besides the one that serves",
)
SIDECAR_BODY = Budget(
    what="the body of a request to a sidecar",
    limit=MIB,
    unit="bytes",
    beyond="TOO_LARGE",
    back="at once",
    why="a thousand events of about 1 KiB",
    bytes=MIB,
)
SIDECAR_EVENTS = Budget(
    what="events of a request to a sidecar",
    limit=1_000,
    unit="events",
    beyond="TOO_LARGE",
    back="at once",
    why="a tenth of what the queue holds",
)
SIDECAR_CONNECTIONS = Budget(
    what="connections of a sidecar",
    limit=64,
    unit="connections, three quarters of which may wait for news",
    beyond="the connection whose request began longest ago is closed; one that would wait is asked to try later",
    back="with each answer, and 10 seconds after a request began at the latest",
    why="each has a thread and at most 1 MiB of a body",
    bytes=64 * MIB,
)
SIDECAR_HEAD = Budget(
    what="request line and headers of a request to a sidecar",
    limit=16 * KIB,
    unit="bytes, in at most 100 headers",
    beyond="refused with the code BAD_REQUEST",
    back="at once",
    why="clients send a few hundred bytes",
    bytes=16 * KIB,
)
WEB_CONNECTIONS = Budget(
    what="connections to the web of a monitor",
    limit=256,
    unit="connections",
    beyond="503, and the connection is closed",
    back="when one is closed",
    why="256 file descriptors of the 1,024 that a process usually has",
)
WEB_BODY = Budget(
    what="the body of a request to the web of a monitor",
    limit=64 * KIB,
    unit="bytes",
    beyond="413: gates of releases send a few hundred bytes, and nothing of them is used",
    back="with the next request",
    why="256 connections of 64 KiB are 16 MiB",
    bytes=64 * KIB,
)

BUDGETS: tuple[Budget, ...] = (
    MODELS,
    DEPLOYED_MODELS,
    FORGOTTEN_MODELS,
    VERSIONS,
    DEPLOYED_VERSIONS,
    JUDGED,
    REPLICAS,
    REPLICAS_OF_ALL,
    VERSIONS_OF_REPLICA,
    EARLIER,
    LABEL_SOURCES,
    SLICE_VALUES,
    UNITS,
    CONTROLS,
    VERSIONS_OF_REQUEST,
    MODELS_OF_REQUEST,
    LABELS_OF_REQUEST,
    LABEL_JOINS,
    SHADOWS_OF_REQUEST,
    SLICE_TEXT,
    LEDGER_RECORD,
    EVENT,
    EVENT_DEPTH,
    PACKED_EVENTS,
    OTHER_LINE,
    LINE,
    DAMAGED_LINES,
    COMMAND,
    NONCES,
    STATUS_RECORD,
    COUNTS,
    REPLICA_CHANGES,
    INCIDENTS,
    ALERTS_WAITING,
    WINDOW,
    RECORDING,
    FLEET_QUEUE,
    HANGING_LOADS,
    SIDECAR_BODY,
    SIDECAR_EVENTS,
    SIDECAR_CONNECTIONS,
    SIDECAR_HEAD,
    WEB_CONNECTIONS,
    WEB_BODY,
)
"""Every row, in the order in which it is shown; a module that adds one adds it here."""
