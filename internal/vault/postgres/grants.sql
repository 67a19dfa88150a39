-- What the application's role may do: no DELETE, no TRUNCATE, no change of a key of the
-- ledger, nothing about the tables themselves.
-- One at a time: two that give rights to the same table at once fail.
SELECT pg_advisory_xact_lock(8461734926503710597);
GRANT USAGE ON SCHEMA upsauth TO {role};
GRANT SELECT ON ALL TABLES IN SCHEMA upsauth TO {role};
GRANT UPDATE (recipient, next_recipient, epoch, system_identifier, timeline, database_oid, claims_oid, highest) ON upsauth.meta TO {role};
GRANT INSERT (id, name, machine, incarnation, boot, epoch, program, accepted) ON upsauth.hosts TO {role};
GRANT UPDATE (name, incarnation, boot, epoch, waived, program, seen, accepted, signed_off, removed) ON upsauth.hosts TO {role};
GRANT INSERT, UPDATE ON upsauth.companies, upsauth.histories, upsauth.applications, upsauth.settings, upsauth.grants,
	upsauth.secrets, upsauth.invitations, upsauth.keys, upsauth.told TO {role};
-- Most readings are changed by a trigger. The right is what a lock on their rows needs.
GRANT UPDATE (reading) ON upsauth.readings TO {role};
GRANT INSERT (slot, event) ON upsauth.history TO {role};
-- The time of a claim is the database's; a new epoch sets that of the open ones.
GRANT INSERT (number, token_vault_key, generation, attempt, sends_generation, sends_attempt, nonce, purpose, host,
	incarnation, epoch, outcome, ended, detail) ON upsauth.claims TO {role};
GRANT UPDATE (time, outcome, ended, detail) ON upsauth.claims TO {role};
GRANT INSERT (id, lane, event) ON upsauth.outbox TO {role};
GRANT UPDATE (lane, told, tries, next, attempt, until) ON upsauth.outbox TO {role};
-- Not those of the triggers: the role could hang them on a table of its own, and have the owner
-- write what it likes.
GRANT EXECUTE ON FUNCTION upsauth.drop_grant, upsauth.drop_claims, upsauth.drop_company, upsauth.drop_history,
	upsauth.drop_application, upsauth.drop_secret, upsauth.drop_invitation, upsauth.drop_key, upsauth.drop_told,
	upsauth.drop_events, upsauth.say_gone TO {role};
