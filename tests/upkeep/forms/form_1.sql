BEGIN TRANSACTION;
CREATE TABLE trimtab_collected (
	version INTEGER NOT NULL, 
	record TEXT NOT NULL, 
	PRIMARY KEY (version), 
	FOREIGN KEY(version) REFERENCES trimtab_versions (number)
);
CREATE TABLE trimtab_moves (
	number INTEGER NOT NULL, 
	task TEXT NOT NULL, 
	alias VARCHAR(64) NOT NULL, 
	version INTEGER NOT NULL, 
	record TEXT NOT NULL, 
	PRIMARY KEY (number), 
	FOREIGN KEY(version) REFERENCES trimtab_versions (number)
);
INSERT INTO "trimtab_moves" VALUES(1,'small','production',1,'{"alias": "production", "version": 1, "from": null, "when": "2026-12-01T01:20:50.004099+00:00", "who": "jo", "why": "first", "kind": "promote", "evidence": null, "number": null}');
INSERT INTO "trimtab_moves" VALUES(2,'small','candidate',2,'{"alias": "candidate", "version": 2, "from": null, "when": "2026-12-01T01:20:50.008313+00:00", "who": "jo", "why": "gate", "kind": "promote", "evidence": {"old_test": {"questions": 100, "difference": 0.01}, "new_test": {"questions": 40, "difference": 0.2}, "forgetting": {}, "latency": null, "passed": true}, "number": null}');
INSERT INTO "trimtab_moves" VALUES(3,'small','production',2,'{"alias": "production", "version": 2, "from": 1, "when": "2026-12-01T01:20:50.034069+00:00", "who": "jo", "why": "better", "kind": "promote", "evidence": {"old_test": {"questions": 100, "difference": 0.01}, "new_test": {"questions": 40, "difference": 0.2}, "forgetting": {}, "latency": null, "passed": true}, "number": null}');
INSERT INTO "trimtab_moves" VALUES(4,'small','production',1,'{"alias": "production", "version": 1, "from": 2, "when": "2026-12-01T01:20:50.036142+00:00", "who": "jo", "why": "back", "kind": "rollback", "evidence": null, "number": null}');
CREATE TABLE trimtab_registry_form (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT trimtab_registry_form_pkc PRIMARY KEY (version_num)
);
INSERT INTO "trimtab_registry_form" VALUES('0001');
CREATE TABLE trimtab_versions (
	number INTEGER NOT NULL, 
	task TEXT NOT NULL, 
	record TEXT NOT NULL, 
	PRIMARY KEY (number)
);
INSERT INTO "trimtab_versions" VALUES(1,'small','{"task": "small", "arm": "lora", "parent": null, "created": "2026-01-01T00:00:00+00:00", "by": "jo", "source": "20260101-000000-abc", "artifact_sha256": "95550c14664bcf5283ab396e72cf8ad21fcbe99540865eeda62d09390c57c7bc", "weights_sha256": "0000000000000000000000000000000000000000000000000000000000000000", "index_sha256": null, "base": {"model": "smollm2-135m-q4", "revision": null, "sha256": "1111111111111111111111111111111111111111111111111111111111111111"}, "settings": {"rank": 8}, "task_sha256": null, "data_sha256": null, "split_sha256": null, "documents_sha256": null, "judgements_sha256": null, "sources": {"rows.jsonl": 100}, "score": {"value": 0.8, "low": 0.7, "high": 0.9, "n": 100, "metric": "exact_match"}, "verdict": "tune it", "flips": [], "machine": {}, "number": null}');
INSERT INTO "trimtab_versions" VALUES(2,'small','{"task": "small", "arm": "lora", "parent": 1, "created": "2026-01-01T00:00:00+00:00", "by": "jo", "source": "20260101-000000-abc", "artifact_sha256": "4b62ab59c78e5d59903ec3b6138d9700691145c9be41073eac471ef6f929b433", "weights_sha256": "0000000000000000000000000000000000000000000000000000000000000000", "index_sha256": null, "base": {"model": "smollm2-135m-q4", "revision": null, "sha256": "1111111111111111111111111111111111111111111111111111111111111111"}, "settings": {"rank": 8}, "task_sha256": null, "data_sha256": null, "split_sha256": null, "documents_sha256": null, "judgements_sha256": null, "sources": {"rows.jsonl": 100}, "score": {"value": 0.8, "low": 0.7, "high": 0.9, "n": 100, "metric": "exact_match"}, "verdict": "tune it", "flips": [], "machine": {}, "number": null}');
CREATE INDEX trimtab_versions_by_task ON trimtab_versions (task, number);
CREATE INDEX trimtab_moves_by_alias ON trimtab_moves (task, alias, number);
COMMIT;
