-- The tables of a vault that several hosts share. This text makes them in an empty
-- database, and brings those of any earlier version up to date. It only adds, so that an
-- earlier upsauth goes on with them; run again, it changes nothing. It is run in one
-- transaction, by the role that is to own the tables.
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL synchronous_commit = on;
SET LOCAL client_min_messages = warning;

-- One at a time: IF NOT EXISTS alone does not keep two from making the same table.
SELECT pg_advisory_xact_lock(8461734926503710597);

DO $check$
DECLARE
	found int;
BEGIN
	IF to_regclass('upsauth.meta') IS NOT NULL THEN
		EXECUTE 'SELECT schema FROM upsauth.meta' INTO found;
		IF found > {version} THEN
			RAISE EXCEPTION 'the tables are of version %, which a newer upsauth made; this upsauth knows version {version} and leaves them alone', found
				USING ERRCODE = 'UA001';
		END IF;
	END IF;
END
$check$;

CREATE SCHEMA IF NOT EXISTS upsauth;
REVOKE ALL ON SCHEMA upsauth FROM PUBLIC;

-- Names and keys are compared by their bytes, whatever the database's language: an index
-- must not change its order when the system's language files do.
--
-- A version is a number that whoever writes a row draws at random. Counted ones would come
-- again after a failover that took commits back, with other rows.

-- What the vault is, and which database it was last known to be in.
CREATE TABLE IF NOT EXISTS upsauth.meta (
	one boolean PRIMARY KEY DEFAULT true CHECK (one),
	schema int NOT NULL,
	vault uuid NOT NULL DEFAULT gen_random_uuid(),
	-- The public part of the team's identity; items are sealed to it. NULL before the first.
	recipient text,
	-- The public part of the identity that the items are being sealed to anew; NULL as a rule.
	next_recipient text,
	epoch bigint NOT NULL DEFAULT 1 CHECK (epoch > 0),
	-- Who the database was when the epoch began; NULL before a host has said so.
	system_identifier text COLLATE "C",
	timeline bigint,
	database_oid bigint,
	claims_oid bigint,
	-- The number of the latest claim there ever was. A claim counts it up in its own
	-- transaction, so the order of the numbers is the order of the commits, and a database
	-- that lost a claim has a lower one.
	highest bigint NOT NULL DEFAULT 0 CHECK (highest >= 0)
);

-- The machines that share the vault. A row is never removed: a host that was removed may
-- still deliver an answer.
CREATE TABLE IF NOT EXISTS upsauth.hosts (
	id text COLLATE "C" PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 100),
	name text COLLATE "C" NOT NULL CHECK (length(name) BETWEEN 1 AND 253),
	-- A digest of the machine's own identifier.
	machine text COLLATE "C" NOT NULL,
	incarnation bigint NOT NULL DEFAULT 1 CHECK (incarnation > 0),
	-- The machine's boot in which the incarnation was raised.
	boot text COLLATE "C" NOT NULL DEFAULT '',
	-- The last epoch that the host has answered for.
	epoch bigint NOT NULL,
	-- The last epoch in which nobody waits for it, because a person said so.
	waived bigint NOT NULL DEFAULT 0,
	program text NOT NULL DEFAULT '',
	registered timestamptz NOT NULL DEFAULT clock_timestamp(),
	seen timestamptz NOT NULL DEFAULT clock_timestamp(),
	accepted timestamptz,
	signed_off timestamptz,
	removed timestamptz
);

-- A table's reading is another number after each transaction that changed its rows, whoever
-- did. Whoever changes several rows locks the reading first, so that no two wait for each
-- other's rows.
CREATE TABLE IF NOT EXISTS upsauth.readings (
	about text COLLATE "C" PRIMARY KEY,
	reading bigint NOT NULL DEFAULT hashtextextended(gen_random_uuid()::text, 0)
);

-- What upsauth alone takes apart is json and not jsonb: jsonb can't keep every text, and
-- leaves out a member that comes twice, which is to be refused.
CREATE TABLE IF NOT EXISTS upsauth.companies (
	slot text COLLATE "C" PRIMARY KEY CHECK (slot ~ '^[0-9a-f]{32}$'),
	version bigint NOT NULL,
	entry json NOT NULL
);

-- The companies that have a history. Whoever adds an event or replaces the history writes
-- this row first, so the version belongs to all of its events.
CREATE TABLE IF NOT EXISTS upsauth.histories (
	slot text COLLATE "C" PRIMARY KEY CHECK (slot ~ '^[0-9a-f]{32}$'),
	version bigint NOT NULL,
	-- Of the events. A newer upsauth that keeps others raises it.
	format int NOT NULL DEFAULT 1,
	-- Of the events, in bytes of JSON.
	size bigint NOT NULL DEFAULT 0
);

CREATE TABLE IF NOT EXISTS upsauth.history (
	number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	slot text COLLATE "C" NOT NULL REFERENCES upsauth.histories ON DELETE CASCADE,
	event json NOT NULL
);
CREATE INDEX IF NOT EXISTS history_slot ON upsauth.history (slot, number);

CREATE TABLE IF NOT EXISTS upsauth.applications (
	environment text COLLATE "C" NOT NULL CHECK (environment <> ''),
	name text COLLATE "C" NOT NULL CHECK (name <> ''),
	version bigint NOT NULL,
	application json NOT NULL,
	PRIMARY KEY (environment, name)
);

-- What is set for all hosts. A value that was taken away is NULL.
CREATE TABLE IF NOT EXISTS upsauth.settings (
	name text COLLATE "C" PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 100),
	version bigint NOT NULL,
	value json
);

-- The slot begins with its company's.
CREATE TABLE IF NOT EXISTS upsauth.grants (
	slot text COLLATE "C" PRIMARY KEY CHECK (slot ~ '^[0-9a-f]{32}-[0-9a-f]{16}$'),
	token_vault_key text COLLATE "C" NOT NULL UNIQUE CHECK (token_vault_key ~ '^[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}$'),
	-- The token that stands: its generation, and the attempt at it that brought it.
	generation bigint NOT NULL CHECK (generation >= 0),
	attempt int NOT NULL CHECK (attempt > 0),
	state text COLLATE "C" NOT NULL CHECK (state IN ('live', 'interrupted', 'void', 'removing', 'moved')),
	version bigint NOT NULL,
	facts jsonb NOT NULL,
	local jsonb NOT NULL DEFAULT '{}',
	-- Sealed to the identity, with the code that binds it to this row.
	item bytea,
	mac bytea CHECK (length(mac) = 32),
	changed timestamptz NOT NULL DEFAULT clock_timestamp(),
	-- The grants in whose place this one came, the latest last: the Token Vault Key of each, and
	-- behind a space the recipient of its journals. A database that went back may have one of them.
	earlier text[] NOT NULL DEFAULT '{}',
	CHECK ((item IS NULL) = (mac IS NULL))
);
-- This column came later, and CREATE TABLE adds none to a table that is there.
ALTER TABLE upsauth.grants ADD COLUMN IF NOT EXISTS earlier text[] NOT NULL DEFAULT '{}';

-- The Token Vault Keys that had a row here and have none: of grants that were revoked, or that
-- another took the place of. A database that went back to before a sign-in does not have its key:
-- so a host that knows the grant can tell one from the other.
CREATE TABLE IF NOT EXISTS upsauth.gone (
	token_vault_key text COLLATE "C" PRIMARY KEY,
	time timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The ledger: whoever inserts a row has the right to send, once. A claim is open while it
-- has no outcome. No host's row is required: a host that the database has forgotten
-- delivers first, and is known again afterwards.
CREATE TABLE IF NOT EXISTS upsauth.claims (
	number bigint NOT NULL UNIQUE CHECK (number > 0),
	-- Of the grant whose token is sent, or that a sign-in makes.
	token_vault_key text COLLATE "C" NOT NULL CHECK (length(token_vault_key) BETWEEN 1 AND 100),
	-- What the exchange makes, and the claim's place among the attempts at it.
	generation bigint NOT NULL CHECK (generation >= 0),
	attempt int NOT NULL CHECK (attempt > 0),
	-- The token that is sent; zeros for a sign-in, which sends a code.
	sends_generation bigint NOT NULL CHECK (sends_generation >= 0),
	sends_attempt int NOT NULL CHECK (sends_attempt >= 0),
	nonce text COLLATE "C" NOT NULL UNIQUE CHECK (length(nonce) BETWEEN 16 AND 100),
	purpose text COLLATE "C" NOT NULL CHECK (purpose IN ('authorize', 'refresh')),
	host text COLLATE "C" NOT NULL CHECK (length(host) BETWEEN 1 AND 100),
	incarnation bigint NOT NULL,
	epoch bigint NOT NULL,
	time timestamptz NOT NULL DEFAULT clock_timestamp(),
	outcome text COLLATE "C" CHECK (outcome IN ('unsent', '429', 'no byte written', 'no answer', 'refused', 'granted')),
	ended timestamptz,
	detail jsonb NOT NULL DEFAULT '{}',
	PRIMARY KEY (token_vault_key, generation, attempt),
	CHECK ((outcome IS NULL) = (ended IS NULL))
);
-- Those that a new epoch dates.
CREATE INDEX IF NOT EXISTS claims_open ON upsauth.claims (number) WHERE outcome IS NULL OR outcome = 'no answer';
-- Those that drop_claims looks at.
CREATE INDEX IF NOT EXISTS claims_time ON upsauth.claims (time);

-- Journal keys, client secrets and other items under the names of their accounts.
CREATE TABLE IF NOT EXISTS upsauth.secrets (
	account text COLLATE "C" PRIMARY KEY CHECK (length(account) BETWEEN 1 AND 300),
	version bigint NOT NULL,
	generation bigint NOT NULL,
	item bytea NOT NULL,
	mac bytea NOT NULL CHECK (length(mac) = 32)
);

CREATE TABLE IF NOT EXISTS upsauth.invitations (
	part text COLLATE "C" NOT NULL CHECK (part IN ('invitation', 'latest')),
	key text COLLATE "C" NOT NULL CHECK (length(key) BETWEEN 1 AND 100),
	version bigint NOT NULL,
	invitation json NOT NULL,
	-- The code that says that somebody with the team's identity wrote the row.
	mac bytea NOT NULL CHECK (length(mac) = 32),
	PRIMARY KEY (part, key)
);

-- The keys of programs: of each only its SHA-256.
CREATE TABLE IF NOT EXISTS upsauth.keys (
	name text COLLATE "C" PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 100),
	version bigint NOT NULL,
	sha256 bytea NOT NULL UNIQUE CHECK (length(sha256) = 32),
	key json NOT NULL,
	-- As of an invitation.
	mac bytea NOT NULL CHECK (length(mac) = 32),
	-- Not part of the version: it is written again and again.
	used timestamptz
);
-- Names that differ only in case are one.
CREATE UNIQUE INDEX IF NOT EXISTS keys_name ON upsauth.keys (lower(name));

-- What was told of each grant and invitation. Whoever changes it changes its reading first,
-- from the one that was read: so of two hosts that compare at once, one compares again.
CREATE TABLE IF NOT EXISTS upsauth.told (
	part text COLLATE "C" NOT NULL CHECK (part IN ('grant', 'invitation')),
	key text COLLATE "C" NOT NULL CHECK (length(key) BETWEEN 1 AND 100),
	memory json NOT NULL,
	PRIMARY KEY (part, key)
);

-- Events that a program is to be told, in the order of a company's lane. Two hosts that
-- find the same event give it the same ID.
CREATE TABLE IF NOT EXISTS upsauth.outbox (
	number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	id text COLLATE "C" NOT NULL UNIQUE,
	lane text COLLATE "C" NOT NULL,
	found timestamptz NOT NULL DEFAULT clock_timestamp(),
	-- Or dropped.
	told timestamptz,
	event json NOT NULL,
	tries int NOT NULL DEFAULT 0,
	next timestamptz NOT NULL DEFAULT clock_timestamp(),
	-- The attempt that is under way, and how long nobody begins another.
	attempt text COLLATE "C" NOT NULL DEFAULT '',
	until timestamptz NOT NULL DEFAULT '-infinity'
);
CREATE INDEX IF NOT EXISTS outbox_waiting ON upsauth.outbox (lane, number) WHERE told IS NULL;

INSERT INTO upsauth.meta (schema) VALUES ({version}) ON CONFLICT (one) DO UPDATE SET schema = excluded.schema
	WHERE meta.schema < excluded.schema;

INSERT INTO upsauth.readings (about) VALUES ('companies'), ('invitations'), ('applications'), ('told') ON CONFLICT DO NOTHING;

-- The table is named by the trigger: the default application is a setting.
CREATE OR REPLACE FUNCTION upsauth.read_anew() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
	UPDATE upsauth.readings SET reading = hashtextextended(gen_random_uuid()::text, 0) WHERE about = TG_ARGV[0];
	RETURN NULL;
END
$body$;

DROP TRIGGER IF EXISTS read_anew ON upsauth.companies;
CREATE TRIGGER read_anew AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON upsauth.companies
	FOR EACH STATEMENT EXECUTE FUNCTION upsauth.read_anew('companies');
DROP TRIGGER IF EXISTS read_anew ON upsauth.invitations;
CREATE TRIGGER read_anew AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON upsauth.invitations
	FOR EACH STATEMENT EXECUTE FUNCTION upsauth.read_anew('invitations');
DROP TRIGGER IF EXISTS read_anew ON upsauth.applications;
CREATE TRIGGER read_anew AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON upsauth.applications
	FOR EACH STATEMENT EXECUTE FUNCTION upsauth.read_anew('applications');
DROP TRIGGER IF EXISTS read_anew ON upsauth.settings;
CREATE TRIGGER read_anew AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON upsauth.settings
	FOR EACH STATEMENT EXECUTE FUNCTION upsauth.read_anew('applications');

CREATE OR REPLACE FUNCTION upsauth.note_gone() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
	IF TG_OP = 'DELETE' OR TG_OP = 'UPDATE' AND OLD.token_vault_key <> NEW.token_vault_key THEN
		INSERT INTO upsauth.gone (token_vault_key) VALUES (OLD.token_vault_key)
			ON CONFLICT (token_vault_key) DO UPDATE SET time = clock_timestamp();
	END IF;
	IF TG_OP <> 'DELETE' THEN
		DELETE FROM upsauth.gone WHERE token_vault_key = NEW.token_vault_key;
	END IF;
	RETURN NULL;
END
$body$;

DROP TRIGGER IF EXISTS note_gone ON upsauth.grants;
CREATE TRIGGER note_gone AFTER INSERT OR UPDATE OF token_vault_key OR DELETE ON upsauth.grants
	FOR EACH ROW EXECUTE FUNCTION upsauth.note_gone();

-- What removes rows. The application's role has no DELETE, so that nothing it is made to
-- say can empty a table: each of these removes what one key names, if its version is the
-- one that was read, and tells whether it did.
--
-- A grant that is being removed takes its claims along.
CREATE OR REPLACE FUNCTION upsauth.drop_grant(of_slot text, of_key text, of_version bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
	DELETE FROM upsauth.grants WHERE slot = of_slot AND token_vault_key = of_key AND version = of_version AND state = 'removing';
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	DELETE FROM upsauth.claims WHERE token_vault_key = of_key;
	RETURN true;
END
$body$;

-- A host says of a grant that it has revoked, or moved away, that it is gone, where the database
-- has lost that and the grant. Who brings a grant back locks the same row, and looks here.
CREATE OR REPLACE FUNCTION upsauth.say_gone(of_key text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
	PERFORM FROM upsauth.meta FOR NO KEY UPDATE;
	INSERT INTO upsauth.gone (token_vault_key) SELECT of_key
		WHERE NOT EXISTS (SELECT FROM upsauth.grants WHERE token_vault_key = of_key)
		ON CONFLICT DO NOTHING;
	RETURN FOUND;
END
$body$;

-- Claims that say nothing any more, a thousand at a time, and how many they were: those of a
-- generation that another has replaced, and those of a Token Vault Key that no row has. The
-- second are of a grant that a sign-in replaced, or of a sign-in that came to nothing.
--
-- A host may still have an answer of such a sign-in, or put back a grant that the database has
-- lost; claims of that grant keep others from its token. So every host must have answered the
-- last roll call, those that a person did not wait for too, and no claim of the key may be
-- younger than a refresh token lasts: UPS says 60 days. What a host says later of a claim that
-- is gone is written anew.
CREATE OR REPLACE FUNCTION upsauth.drop_claims() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
	now_epoch bigint;
	recent timestamptz := clock_timestamp() - interval '90 days';
	dropped bigint;
BEGIN
	-- No epoch begins meanwhile.
	SELECT epoch INTO now_epoch FROM upsauth.meta FOR NO KEY UPDATE;
	IF EXISTS (SELECT FROM upsauth.hosts WHERE removed IS NULL AND signed_off IS NULL AND epoch < now_epoch) THEN
		RETURN 0;
	END IF;
	DELETE FROM upsauth.claims WHERE nonce IN (
		SELECT c.nonce FROM upsauth.claims c LEFT JOIN upsauth.grants g ON g.token_vault_key = c.token_vault_key
		WHERE c.time < recent AND (c.ended IS NULL OR c.ended < recent)
			AND CASE WHEN g.slot IS NOT NULL THEN c.generation < g.generation
				ELSE NOT EXISTS (SELECT FROM upsauth.claims y WHERE y.token_vault_key = c.token_vault_key AND (y.time >= recent OR y.ended >= recent)) END
		LIMIT 1000);
	GET DIAGNOSTICS dropped = ROW_COUNT;
	DELETE FROM upsauth.gone WHERE time < recent;
	RETURN dropped;
END
$body$;

CREATE OR REPLACE FUNCTION upsauth.drop_company(of_slot text, of_version bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
	DELETE FROM upsauth.companies WHERE slot = of_slot AND version = of_version;
	RETURN FOUND;
END
$body$;

-- A history goes with its events.
CREATE OR REPLACE FUNCTION upsauth.drop_history(of_slot text, of_version bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
	DELETE FROM upsauth.histories WHERE slot = of_slot AND version = of_version;
	RETURN FOUND;
END
$body$;

CREATE OR REPLACE FUNCTION upsauth.drop_application(of_environment text, of_name text, of_version bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
	DELETE FROM upsauth.applications WHERE environment = of_environment AND name = of_name AND version = of_version;
	RETURN FOUND;
END
$body$;

CREATE OR REPLACE FUNCTION upsauth.drop_secret(of_account text, of_version bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
	DELETE FROM upsauth.secrets WHERE account = of_account AND version = of_version;
	RETURN FOUND;
END
$body$;

CREATE OR REPLACE FUNCTION upsauth.drop_invitation(of_part text, of_key text, of_version bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
	DELETE FROM upsauth.invitations WHERE part = of_part AND key = of_key AND version = of_version;
	RETURN FOUND;
END
$body$;

CREATE OR REPLACE FUNCTION upsauth.drop_key(of_name text, of_version bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
	DELETE FROM upsauth.keys WHERE name = of_name AND version = of_version;
	RETURN FOUND;
END
$body$;

CREATE OR REPLACE FUNCTION upsauth.drop_told(of_part text, of_key text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
	DELETE FROM upsauth.told WHERE part = of_part AND key = of_key;
	RETURN FOUND;
END
$body$;

-- An event stays for as long as another host could find it again.
CREATE OR REPLACE FUNCTION upsauth.drop_events() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
	gone bigint;
BEGIN
	DELETE FROM upsauth.outbox WHERE told < clock_timestamp() - interval '1 day';
	GET DIAGNOSTICS gone = ROW_COUNT;
	RETURN gone;
END
$body$;

REVOKE ALL ON ALL TABLES IN SCHEMA upsauth FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA upsauth FROM PUBLIC;
