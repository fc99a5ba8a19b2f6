-- What grows in a schema over the years: keys of every type, inheritance, columns that are gone,
-- partitions that were tables of their own, names that have to be quoted.
CREATE TYPE billing.stage AS ENUM ('z', 'a', 'm');
CREATE DOMAIN billing.known_stage AS billing.stage NOT NULL;

-- Keys of every type.
CREATE TABLE key_of_many (
    account_id bigint NOT NULL REFERENCES accounts,
    stage billing.stage, code char(5), day date, host inet, exact numeric, flag boolean,
    note text,
    PRIMARY KEY (account_id, stage, code, day, host, exact, flag));
CREATE TABLE key_of_float (account_id bigint NOT NULL, key float8 PRIMARY KEY, note text);
CREATE TABLE key_of_bytes (account_id bigint NOT NULL, key bytea PRIMARY KEY, note text);
CREATE TABLE key_of_range (account_id bigint NOT NULL, key int4range PRIMARY KEY, note text);
CREATE TABLE key_of_json (account_id bigint NOT NULL, key jsonb PRIMARY KEY, note text);
CREATE TABLE key_of_array (
    account_id bigint NOT NULL, key int[] PRIMARY KEY, stage billing.known_stage, note text);
CREATE TABLE key_of_row (account_id bigint NOT NULL, key postal_address PRIMARY KEY, note text);
CREATE TABLE key_of_numeric (account_id bigint NOT NULL, key numeric PRIMARY KEY, note text);
CREATE TABLE key_of_interval (account_id bigint NOT NULL, key interval PRIMARY KEY, note text);
CREATE TABLE key_of_text (account_id bigint NOT NULL, key text PRIMARY KEY, note text);

-- No keys at all, and types that cannot be compared; a table of nothing but the account.
CREATE TABLE sketches (account_id bigint, data json, at point, frame box, source xml);
CREATE TABLE clicks (account_id bigint NOT NULL);

-- Order in lists, unique in every way.
CREATE TABLE board_columns (
    id bigint PRIMARY KEY,
    account_id bigint NOT NULL REFERENCES accounts,
    place int NOT NULL,
    UNIQUE (account_id, place) DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE phone_numbers (
    id bigint PRIMARY KEY,
    account_id bigint NOT NULL REFERENCES accounts,
    number text,
    extension text,
    UNIQUE NULLS NOT DISTINCT (account_id, number, extension));

-- Inheritance: the parent's rows are not the child's. A subclass has its parent's key.
CREATE TABLE assets (
    id bigint PRIMARY KEY, account_id bigint NOT NULL REFERENCES accounts, name text);
CREATE TABLE retired_assets (retired date DEFAULT '2020-01-01', PRIMARY KEY (id)) INHERITS (assets);
CREATE TABLE vehicles (
    asset_id bigint PRIMARY KEY REFERENCES assets, plate text, tows bigint REFERENCES vehicles);

-- Columns that are gone, names that have to be quoted, values that are large, many columns.
CREATE TABLE "v1.imports" (
    "user's ""col""" text,
    gone int,
    account_id bigint NOT NULL,
    "id" bigint PRIMARY KEY,
    "a,b" int,
    "$1" int,
    U&"caf\00e9" text);
ALTER TABLE "v1.imports" DROP COLUMN gone, ADD COLUMN added text DEFAULT 'later';
CREATE TABLE uploads (id bigint PRIMARY KEY, account_id bigint NOT NULL, content bytea, words text);
CREATE TABLE wide (id bigint PRIMARY KEY, account_id bigint NOT NULL);
SELECT 'ALTER TABLE wide ' || string_agg(format('ADD c%s int DEFAULT %s', n, n), ', ')
  FROM generate_series(1, 200) n \gexec

-- Partitions of partitions, one of which was a table with its columns in another order.
CREATE TABLE visits (
    id bigint, gone int, account_id bigint NOT NULL, site text NOT NULL, day date NOT NULL,
    before_id bigint, before_day date, before_site text,
    PRIMARY KEY (id, day, site)) PARTITION BY RANGE (day);
CREATE TABLE visits_2024 PARTITION OF visits FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')
    PARTITION BY LIST (site);
CREATE TABLE visits_2024_a PARTITION OF visits_2024 FOR VALUES IN ('a');
CREATE TABLE visits_2024_rest PARTITION OF visits_2024 DEFAULT;
ALTER TABLE visits DROP COLUMN gone;
CREATE TABLE visits_2025 (
    before_site text, before_day date, before_id bigint, day date NOT NULL, site text NOT NULL,
    gone int, account_id bigint NOT NULL, id bigint NOT NULL);
ALTER TABLE visits_2025 DROP COLUMN gone;
ALTER TABLE visits ATTACH PARTITION visits_2025 FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
ALTER TABLE visits ADD FOREIGN KEY (before_id, before_day, before_site) REFERENCES visits;
ALTER TABLE visits ADD twice bigint GENERATED ALWAYS AS (account_id * 2) STORED;

-- A rule about several rows, looked at when a transaction ends.
CREATE FUNCTION check_board() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT min(place) FROM public.board_columns WHERE account_id = NEW.account_id) <> 1 THEN
        RAISE 'account % has no first column', NEW.account_id;
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER check_board AFTER INSERT OR UPDATE ON board_columns
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_board();
