-- What the application's role may do: no DELETE, no TRUNCATE, no change of a key of the
-- ledger, nothing about the tables themselves.
GRANT USAGE ON SCHEMA upsauth TO {role};
GRANT SELECT ON ALL TABLES IN SCHEMA upsauth TO {role};
GRANT UPDATE (recipient, epoch, system_identifier, timeline, database_oid, claims_oid) ON upsauth.meta TO {role};
GRANT INSERT (id, name, machine, epoch, program) ON upsauth.hosts TO {role};
GRANT UPDATE (name, incarnation, epoch, program, seen, accepted, signed_off, removed) ON upsauth.hosts TO {role};
GRANT INSERT, UPDATE ON upsauth.companies, upsauth.applications, upsauth.grants, upsauth.secrets,
	upsauth.invitations, upsauth.keys TO {role};
GRANT INSERT (slot, event) ON upsauth.history TO {role};
-- Number and time of a claim are the database's.
GRANT INSERT (subject, generation, attempt, slot, nonce, purpose, host, incarnation, epoch, outcome, ended, detail)
	ON upsauth.claims TO {role};
-- The slot follows a rename.
GRANT UPDATE (slot, time, taken_over, outcome, ended, detail) ON upsauth.claims TO {role};
GRANT INSERT (id, lane, event) ON upsauth.outbox TO {role};
GRANT UPDATE (told) ON upsauth.outbox TO {role};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA upsauth TO {role};
