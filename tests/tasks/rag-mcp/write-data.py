"""Writes a data directory as the older Python server left it: write-data.py DIRECTORY"""
import json
import os
import sqlite3
import sys

directory, count = sys.argv[1], 200
memory = sqlite3.connect(os.path.join(directory, "memory.db"))
memory.execute("PRAGMA journal_mode = DELETE")
memory.executescript("""
CREATE TABLE memory_facts (id TEXT PRIMARY KEY, scope TEXT, category TEXT, key TEXT, value TEXT,
  confidence REAL CHECK (confidence >= 0 AND confidence <= 1), source TEXT, created_at TEXT, updated_at TEXT,
  UNIQUE(scope, key));
CREATE TABLE memory_audit_log (id INTEGER PRIMARY KEY AUTOINCREMENT, fact_id TEXT, operation TEXT, old_value TEXT,
  new_value TEXT, changed_by TEXT, changed_at TEXT);
CREATE TRIGGER audit_insert AFTER INSERT ON memory_facts BEGIN
  INSERT INTO memory_audit_log (fact_id, operation, new_value, changed_by, changed_at)
  VALUES (NEW.id, 'INSERT', NEW.value, NEW.source, '2025-01-01T00:00:00'); END;
""")
for number in range(count):
    value = json.dumps({"number": number, "text": "größer \"quoted\" " + "x" * (number % 50)})
    memory.execute("INSERT INTO memory_facts VALUES (?, 'old', 'general', ?, ?, 0.8, 'agent', ?, ?)",
                   ("old-fact-%05d" % number, "key-%05d" % number, value, "2025-01-01T00:00:00", "2025-01-02T00:00:00"))
memory.commit()
memory.close()

episodic = sqlite3.connect(os.path.join(directory, "episodic.db"))
episodic.execute("""CREATE TABLE episodic_memory (id TEXT PRIMARY KEY, project_id TEXT, situation TEXT, action TEXT,
  outcome TEXT, lesson TEXT, confidence REAL, created_at TEXT)""")
episodic.executemany("INSERT INTO episodic_memory VALUES (?, 'old', 's', 'a', 'o', 'l', 0.5, '2025-01-01T00:00:00')",
                     [("episode-%d" % number,) for number in range(count // 4)])
episodic.commit()
episodic.close()

index = os.path.join(directory, "semantic_index")
os.makedirs(index, exist_ok=True)
with open(os.path.join(index, "chunks.json"), "w") as file:
    json.dump([{"chunk_id": "c%d" % number, "document_id": "d%d" % (number // 3), "content": "chunk %d about helix" % number,
                "embedding": [0.1, 0.2], "metadata": {"project_id": "old"}, "chunk_index": number % 3,
                "created_at": "2025-01-01T00:00:00"} for number in range(9)], file)
with open(os.path.join(index, "metadata.json"), "w") as file:
    json.dump({"model": "all-MiniLM-L6-v2", "dimension": 384}, file)
open(os.path.join(directory, "metrics.db"), "w").close()
for name in ["a file with spaces & 'quotes'.txt", "-dash", "zeile\nzwei.json"]:
    with open(os.path.join(directory, name), "w") as file:
        file.write(name)
with open(os.path.join(os.fsencode(directory), b"latin-\xff.txt"), "wb") as file:
    file.write(b"not UTF-8")
os.symlink("semantic_index/chunks.json", os.path.join(directory, "link to chunks"))
