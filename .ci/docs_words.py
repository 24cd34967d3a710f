"""Describe each key of the configuration and each field of the events.

A key or field without a meaning stops `docs.py`, so none can appear without being described.
"""

from __future__ import annotations

from streams.config.parse import DETECTORS_OF_ERRORS, DETECTORS_READY

NOT_USED_YET = "Read and checked, not used yet."


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


KEYS: dict[str, str] = {
    "log": "Where the topics are: `embedded:DIR` or `kafka://HOST:PORT[,HOST:PORT]`.",
    "keys": "Folder of the keys that commands are signed with.",
    "defaults": "Values for all that a model's own section leaves out: the same keys as `models.NAME`.",
    "models": "One section for each model, by its name in the events. A model that is not listed gets `defaults`.",
    "models.NAME.target.kind": "What is predicted: `binary`, `multiclass`, `regression` (a number), `ranking` (a "
    "list, the best first) or `custom` (judged by functions of yours only).",
    "models.NAME.losses": "How wrong an answer is, from 0 (right) to 1: see [losses](#losses). The first is the "
    "primary one.",
    "models.NAME.labels.horizon": "A label that comes later than this is not joined any more (`LATE_FEEDBACK`).",
    "models.NAME.labels.mature_after": "How long every label gets to come before its outcome is judged. With `0s` "
    "outcomes count as they arrive, and label coverage is not watched: see "
    "[why labels must mature](../concepts/false-alarms.md#why-labels-must-mature).",
    "models.NAME.labels.early": "How much earlier than its prediction a label may arrive.",
    "models.NAME.labels.missing": "What a label means that is still missing at maturity. `ignore`: nothing. "
    "`negative`: the truth was 0, as where only bad news is reported, or the answer was not used; for `binary`, or the "
    "losses `engagement` and `ranking`, and a `mature_after` above 0 only. "
    "See [missing labels](#missing-labels).",
    "models.NAME.labels.on_conflict": "Which label counts if several disagree: the `first`, or the `last` that came "
    "before the cohort closed; `last` needs a `mature_after` above 0. See [corrected labels](#corrected-labels).",
    "models.NAME.labels.sources": "Names of the label sources that are known, at most 8, as in the field `source` of "
    "feedback. All others are one pool, which is left out as one and never acted upon if it gave half of the labels. "
    "Without the list, names are what their writers declare: see "
    "[what a writer of labels can do](../concepts/writers.md).",
    "models.NAME.slices.by": "Names in the predictions' `slices` whose values are watched on their own; at most 8.",
    "models.NAME.slices.cap": "How many values are watched, all names together, 1 to 1000; further ones are counted as "
    "`__other__`, which cannot alarm.",
    "models.NAME.worse_by": "The smallest rise of the mean loss that matters: a version worse by less is healthy.",
    "models.NAME.one_false_alarm_per": "The promise: one false alarm in so many outcomes of the model (100 or more), "
    "or in a span of time such as `90d` (a minute or more).",
    "models.NAME.detectors": "The first decides, the others are second opinions. "
    f"Known are {_listed(DETECTORS_READY)}; of these {_listed(DETECTORS_OF_ERRORS)} take only losses that are 0 or 1. "
    "The promise holds only where `e_detector` is the first.",
    "models.NAME.policy.mode": "`observe`: only record what would be done; `approve`: propose it; `act`: do it.",
    "models.NAME.policy.cooldown": "How long after an automatic rollback the next one has to wait.",
    "models.NAME.policy.max_switches": "How many automatic rollbacks a window may hold; then they stop until `resume`.",
    "models.NAME.policy.without_control": "How far to go without a concurrent holdback or shadow, if an earlier "
    "version was better by its record: `propose` at most, `act` as the mode allows, or `page` a person. See "
    "[without a holdback or a shadow](../concepts/false-alarms.md#without-a-holdback-or-a-shadow).",
    "models.NAME.policy.confirm_within": "How long to look for proof that another version is better before a person is "
    "paged. Within it the fourth deployment of a version that was live just before pages (`CHURN`), and from it on a "
    "deployment of that kind goes on with what is known of the version.",
    "models.NAME.policy.deployments": "Whose deployments are followed: `signed`, only those of a deployer or an "
    "operator; or `any`. The default is `signed` where the mode is `act` or `approve`, else `any`: see "
    "[announce a version](../how-to/deployments.md).",
    "models.NAME.policy.holdback": "Which share an earlier version goes on answering after a release, to have "
    "something to compare with: `{share: 5%, raise_to: 30%, keep: 14d}`, or `null` for none. `share` and `raise_to` "
    "are above 0 % and at most 50 %, `raise_to` is not less than `share`; without it the share does not rise. `keep` "
    "is a span, or `always`; its default is `14d`. See [hold a version back](../how-to/holdback.md).",
    "models.NAME.policy.proposal_ttl": "How long a proposal stays open.",
    "fleet.max_simultaneous": "How many models may be under an automatic rollback at the same time, each for its "
    "`policy.cooldown`; further ones page (`FLEET_LIMIT`) and are frozen until `resume`.",
    "alerts": "Where each change of an incident goes: commands, webhooks, Alertmanagers and URLs of Apprise, such as "
    "`[{command: [./page.sh]}]`: see [get alerts](../how-to/alerts.md).",
    "web.listen": "Where the monitor's web listens, such as `127.0.0.1:8080`; `null`: nowhere, unless "
    "`unship run --web` names an address. See [metrics and status over HTTP](../how-to/metrics.md).",
    "web.token_file": "A file with the token that requests have to carry, relative to `unship.yaml`. Without it the "
    "web listens only on addresses of this machine.",
    "kafka.security.protocol": "`PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`. Without it `SASL_SSL` with a "
    "username, `SSL` with a certificate file alone, else `PLAINTEXT`. Without the section `kafka.security`, the "
    "environment's `UNSHIP_SECURITY_*` variables are used: see [Kafka](../how-to/kafka.md#let-clients-in).",
    "kafka.security.mechanism": "`PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.",
    "kafka.security.username": "Who logs in.",
    "kafka.security.password": "With what; write `${NAME}`, not the password itself.",
    "kafka.security.password_file": "A file that holds the password in one line, relative to `unship.yaml`.",
    "kafka.security.ca_file": "Certificates of the authorities that sign the brokers' (PEM); without it the system's.",
    "kafka.security.cert_file": "The client's own certificate (PEM), for brokers that require one.",
    "kafka.security.key_file": "The private key of that certificate (PEM, not encrypted).",
    "limits.window": "How much memory the predictions that wait for their labels may take in a worker on Kafka: a "
    "number with `MiB` or `GiB`, 16MiB at least. Beyond it they are on disk: "
    "see [the window's files](window-files.md).",
    "limits.recording": "How much a command unpacks of one recording: a number with `MiB` or `GiB`, 16MiB at least.",
    "limits.models": "How many models are watched that are neither in `models` nor deployed, in each ledger partition: "
    "see [the budgets](budgets.md), which have these three and all other limits.",
    "limits.versions": "How many versions of a model are known that were not deployed.",
    "limits.replicas": "How many replicas of a model are followed.",
    "kafka.window_dir": "Folder of the window's files, relative to `unship.yaml`: a cache, which may be removed while "
    "no worker runs. `null`: everything is in memory, and read from the log after a restart.",
    "kafka.topics.prefix": "The beginning of every topic's name.",
    "kafka.topics.partitions": "Partitions of `predictions` and of `feedback`, 1 to 1024. They cannot be changed once "
    "there are events.",
    "kafka.topics.ledger_partitions": "Partitions of the topics that are keyed by the model, 1 to 256. They cannot be "
    "changed once there are records.",
    "kafka.topics.replication": "Copies of each record. Without it three, or one per broker where there are fewer.",
}

EVENT_FIELDS: dict[str, dict[str, str]] = {
    "": {
        "type": "Which event the line is.",
        "ts": "When it happened. Without it, the time of the line before.",
        "at": "Only in recordings taken from a log: topic, partition, offset, append time.",
    },
    "Prediction": {
        "id": "Joins the answer with its truth. Unique for each request.",
        "model": "Which model answered.",
        "version": "Which version of it.",
        "output": "The answer: a class, a number, or a list for rankings. Required where a loss needs it.",
        "row": "Place in a request that asks for several answers.",
        "target": "Which of several targets, where one request predicts more than one.",
        "score": "Probability of the positive class.",
        "scores": "Probability of each class.",
        "role": "`holdback` answers a part of the requests while another version is live; `shadow` answers the same "
        "requests as the live version, unused.",
        "slices": "Properties of the request by name, for example `country`.",
        "latency_ms": "How long the answer took, for the loss `latency`.",
        "unit_hash": "Whom the answer was given to, as 32 bits of a hash, where `Fleet.choose` dealt out versions.",
        "replica": "Which replica answered: it proves what that one serves.",
        "epoch": "The desired state that the replica obeyed when it answered.",
        "artifact": "Digest of the version's bytes. Not used yet; a deployment's is.",
    },
    "Feedback": {
        "id": "The prediction's `id`.",
        "truth": "What turned out to be true. Required unless `engagement` or `retract` is there.",
        "model": "Which model it is for; without it, every model's prediction of that `id`.",
        "row": "The prediction's `row`.",
        "target": "The prediction's `target`.",
        "source": "What reports it. Sources are compared with each other before a rollback.",
        "retract": "True to take the label back, as for a chargeback that was reversed; for models with "
        "`labels.on_conflict: last`.",
        "engagement": "How much the answer was used, 0 to 1. For the loss `engagement`.",
    },
    "Deployment": {
        "model": "Which model.",
        "version": "Which version.",
        "status": "What it serves as from now on. `retired` is never gone back to.",
        "previous": "Which version it replaces. Kept to distinguish repeats.",
        "artifact": "Digest of the version's bytes: `sha256:` and hexadecimal digits in small letters. Quarantine bars "
        "the same bytes under another name, and a version without a digest [that may be them](reasons.md#quarantine).",
        "reference": "Offline metrics: the name of a loss, its mean and the number of outcomes it was measured on. "
        "Ignored if the version's own first outcomes contradict it (`REFERENCE_IMPLAUSIBLE`).",
        "card": "The model card or its address. Not used yet.",
        "audience": "Signed bytes only: for which installation, as in its `trust.json`.",
        "issued_ts": "Signed bytes only: when they were signed, in milliseconds.",
        "not_after_ts": "Signed bytes only: until when they may be appended, at most an hour after `issued_ts`.",
        "nonce": "Signed bytes only: what no other event has; a second one with it is refused.",
    },
    "OperatorAct": {
        "act": "What is ordered: see [operators' acts](#operators-acts).",
        "model": "For which model.",
        "reason": "Why, in the operator's words; the decision records it.",
        "by": "Who ordered it.",
        "version": "For `pin` and `release`.",
        "to": "For `rollback`: the version to go back to.",
        "decision": "For `approve` and `reject`: the proposal's `id`; without it, the open one.",
        "override": "Follow the order even under a hold, or for a version in quarantine.",
        "incarnation": "For `renew`: the one that begins, higher than that of the ledger.",
        "audience": "Signed bytes only: for which installation, as in its `trust.json`.",
        "issued_ts": "Signed bytes only: when they were signed, in milliseconds.",
        "not_after_ts": "Signed bytes only: until when they may be appended, at most an hour after `issued_ts`.",
        "nonce": "Signed bytes only: what no other event has; a second one with it is refused.",
    },
    "Ack": {
        "model": "Which model.",
        "replica": "Which replica reports it.",
        "boot": "Which start of that replica.",
        "epoch": "The desired state that it is about.",
        "stage": "How far it has come.",
        "serving": "The version it serves.",
        "beside": "The versions that answer a share of the requests; absent where none has a share.",
        "code": "Why it refused, if it did; `STATE_...`: why the epoch that it kept could not be read as it started.",
    },
}
