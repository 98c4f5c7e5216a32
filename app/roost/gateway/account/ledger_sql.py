"""The statements of the ledger. A table of an earlier release gets further columns only with a default."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS usage (
    day TEXT NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL,
    requests INTEGER NOT NULL, failed INTEGER NOT NULL, estimated INTEGER NOT NULL,
    prompt INTEGER NOT NULL, cached INTEGER NOT NULL, completion INTEGER NOT NULL,
    engine_ms REAL NOT NULL, cost REAL NOT NULL, energy_j REAL NOT NULL, version INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (day, key, model)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS heard (
    replica TEXT NOT NULL, day TEXT NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL,
    requests INTEGER NOT NULL, failed INTEGER NOT NULL, estimated INTEGER NOT NULL,
    prompt INTEGER NOT NULL, cached INTEGER NOT NULL, completion INTEGER NOT NULL,
    engine_ms REAL NOT NULL, cost REAL NOT NULL, energy_j REAL NOT NULL, version INTEGER NOT NULL,
    PRIMARY KEY (replica, day, key, model)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS own (
    one INTEGER PRIMARY KEY CHECK (one = 1), replica TEXT NOT NULL, version INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS progress (one INTEGER PRIMARY KEY CHECK (one = 1), spool INTEGER, position INTEGER);
CREATE TABLE IF NOT EXISTS levels (
    key TEXT PRIMARY KEY, requests REAL, requests_age_s REAL, tokens REAL, tokens_age_s REAL, at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS backoffs (key TEXT PRIMARY KEY, strikes INTEGER, blocked_s REAL, refused_age_s REAL);
CREATE TABLE IF NOT EXISTS strikes (
    kind TEXT, who TEXT, strikes INTEGER, age_s REAL, at REAL NOT NULL, PRIMARY KEY (kind, who)
);
INSERT OR IGNORE INTO progress VALUES (1, 0, 0);
"""
TABLES = ("usage", "heard", "own", "progress", "levels", "backoffs", "strikes")
ADD = """
INSERT INTO usage
(day, key, model, requests, failed, estimated, prompt, cached, completion, engine_ms, cost, energy_j, version)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (day, key, model) DO UPDATE SET
    requests = requests + excluded.requests, failed = failed + excluded.failed,
    estimated = estimated + excluded.estimated, prompt = prompt + excluded.prompt,
    cached = cached + excluded.cached, completion = completion + excluded.completion,
    engine_ms = engine_ms + excluded.engine_ms, cost = cost + excluded.cost, energy_j = energy_j + excluded.energy_j,
    version = excluded.version
"""
HEAR = """
INSERT INTO heard (replica, version, day, key, model,
    requests, failed, estimated, prompt, cached, completion, engine_ms, cost, energy_j)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (replica, day, key, model) DO UPDATE SET version = excluded.version,
    requests = excluded.requests, failed = excluded.failed, estimated = excluded.estimated,
    prompt = excluded.prompt, cached = excluded.cached, completion = excluded.completion,
    engine_ms = excluded.engine_ms, cost = excluded.cost, energy_j = excluded.energy_j
WHERE excluded.version > version
"""
OWN_BEYOND = """
SELECT version, day, key, model, requests, failed, estimated, prompt, cached, completion, engine_ms, cost, energy_j
FROM usage WHERE version > ? ORDER BY version LIMIT ?
"""
HEARD_BEYOND = """
SELECT version, day, key, model, requests, failed, estimated, prompt, cached, completion, engine_ms, cost, energy_j
FROM heard WHERE replica = ? AND version > ? ORDER BY version LIMIT ?
"""
ASK = """
SELECT iif(:by_day, day, ''), iif(:by_key, key, ''), iif(:by_model, model, ''),
    sum(requests), sum(failed), sum(estimated), sum(prompt), sum(cached), sum(completion),
    sum(engine_ms), sum(cost), sum(energy_j)
FROM (
    SELECT day, key, model, requests, failed, estimated, prompt, cached, completion, engine_ms, cost, energy_j
    FROM usage
    UNION ALL
    SELECT day, key, model, requests, failed, estimated, prompt, cached, completion, engine_ms, cost, energy_j
    FROM heard
)
WHERE (:since = '' OR day >= :since) AND (:until = '' OR day <= :until)
    AND (:key = '' OR key = :key) AND (:model = '' OR model = :model)
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
SPENT_HERE = """
SELECT key, sum((prompt + completion) * (day = :day)), sum(prompt + completion), sum(cost * (day = :day)), sum(cost)
FROM usage WHERE substr(day, 1, 7) = :month GROUP BY key
"""
SPENT_ELSEWHERE = """
SELECT key, sum((prompt + completion) * (day = :day)), sum(prompt + completion), sum(cost * (day = :day)), sum(cost)
FROM heard WHERE substr(day, 1, 7) = :month GROUP BY key
"""
ALL = """
SELECT day, key, model, requests, failed, estimated, prompt, cached, completion, engine_ms, cost, energy_j FROM usage
"""
