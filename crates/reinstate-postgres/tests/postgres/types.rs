//! Values of every built-in type.

use crate::ground::{Ground, restore};

pub const EVERY_TYPE: &str = "\
CREATE EXTENSION IF NOT EXISTS hstore;
CREATE TYPE mood AS ENUM ('sad', 'so so', 'it''s \"fine\"');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN short AS text CHECK (length(value) < 400);
CREATE TABLE every_type (
    id bigint PRIMARY KEY, account_id text NOT NULL,
    c_bool bool, c_int2 int2, c_int4 int4, c_int8 int8, c_float4 float4, c_float8 float8,
    c_numeric numeric, c_numeric_scale numeric(30, 9), c_money money,
    c_text text, c_varchar varchar(50), c_char char(9), c_bpchar bpchar, c_name name,
    c_internal \"char\", c_bytea bytea,
    c_date date, c_time time, c_timetz timetz, c_timestamp timestamp, c_timestamptz timestamptz(3),
    c_interval interval, c_uuid uuid, c_json json, c_jsonb jsonb, c_xml xml,
    c_inet inet, c_cidr cidr, c_macaddr macaddr, c_macaddr8 macaddr8,
    c_point point, c_line line, c_lseg lseg, c_box box, c_path path, c_polygon polygon,
    c_circle circle, c_bit bit(5), c_varbit varbit, c_tsvector tsvector, c_tsquery tsquery,
    c_int4range int4range, c_numrange numrange, c_tstzrange tstzrange, c_multirange int4multirange,
    c_mood mood, c_pair pair, c_short short, c_oid oid, c_pg_lsn pg_lsn, c_jsonpath jsonpath,
    c_hstore hstore, c_int_array int[], c_text_array text[][], c_mood_array mood[],
    c_pair_array pair[], c_snapshot pg_snapshot,
    c_generated int GENERATED ALWAYS AS (c_int4 / 2) STORED
);
INSERT INTO every_type VALUES (
    1, 'acme', true, -32768, 2147483647, -9223372036854775808, '1.1754944e-38', '0.1',
    '123456789012345678901234567890.000000000100', 'NaN', '-92233720368547758.08',
    E'a\\tb\\nc\\rd\\\\e\\\\.\\\\N', E'\\u00e9\\u4e16 ', 'abc', 'x  ', 'name',
    '-', '\\x00ff5c5c0a',
    '0044-03-15 BC', '24:00:00', '23:59:59.999999+15:59', '294276-12-31 23:59:59.999999',
    '2026-11-23 14:30:00.123+05:30',
    '-1 year 2 mons -3 days 04:05:06.789', '0f8fad5b-d9cb-469f-a165-70867728950e',
    '{\"b\" : 1,  \"a\": \"\\u00e9\\n\"}', '{\"b\": 1e400, \"a\": [null, \"\\\\\"]}', '<a b=\"c\">d &amp; e</a>',
    '10.1.2.3/8', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05',
    '(0.1,-1e-300)', '{1,2,3}', '[(0,0),(1,1)]', '(3,3),(1,1)', '[(0,0),(1,1),(2,0)]',
    '((0,0),(1,1),(2,0))', '<(0.5,0.5),2>', '10101', '1', '''a b'':1A,2 ''it''''s'':3', '''a'' & !''b c'':*A',
    '[1,10)', '(,1.5]', '[2026-01-01 00:00+02,)', '{[1,3),[5,9)}',
    'it''s \"fine\"', '(1,\"a,\"\"b\\\\\")', 'short', 4294967295, 'FFFFFFFF/0', '$.\"a\"[*] ? (@ > 1)',
    '\"a b\"=>\"c\\\\\", d=>NULL', '[0:2]={1,NULL,-3}', '{{\"a,b\",\"NULL\"},{NULL,\"\"}}',
    '{sad,\"it''s \\\"fine\\\"\"}', '{\"(1,\\\"x y\\\")\",\"(,)\",NULL}', '10:20:10,14,15'),
   (2, 'acme', false, 0, 0, 0, 'Infinity', '-0', '-Infinity', '0.000000001', '0',
    '', '', '', '', '', '', '', '-infinity', '00:00', '00:00+00', 'infinity', '-infinity',
    '0', '00000000-0000-0000-0000-000000000000', 'null', 'null', 'text only', '::1', '::/0',
    '00:00:00:00:00:00', '00:00:00:00:00:00:00:00', '(NaN,Infinity)', '{0,1,0}', '((0,0),(0,0))',
    '(0,0),(0,0)', '((0,0))', '((0,0))', '<(0,0),0>', '00000', '', '', '', 'empty', 'empty', 'empty', '{}',
    'sad', '(,)', '', 0, '0/0', '$', '', '{}', '{}', '{}', '{}', '1:1:');
INSERT INTO every_type (id, account_id) VALUES (3, 'acme');
INSERT INTO every_type (id, account_id, c_float8, c_float4, c_text)
    SELECT 100 + n, 'acme', n * 0.1 + 1e15 / (n + 1), n / 3.0, repeat(chr(n + 33), n * 40)
      FROM generate_series(0, 200) n;
INSERT INTO every_type (id, account_id, c_text) VALUES (9, 'beta', 'theirs'), (10, 'Acme', 'theirs');
";

#[test]
fn every_built_in_type_comes_back_byte_by_byte() {
    let ground = Ground::new(EVERY_TYPE);
    let image = ground.image("acme");
    let others = ground.others(&["every_type"], "acme");
    let text = "SELECT md5(string_agg(t::text, '|' ORDER BY id)) FROM every_type t";
    let before = ground.psql(text);
    ground.psql("DELETE FROM every_type WHERE account_id = 'acme'");
    restore(&ground.store, "acme", &image, 1).unwrap();
    assert_eq!(ground.image("acme"), image);
    assert_eq!(ground.psql(text), before);

    // Put back instead of created: every column but the key is changed first.
    ground.psql(
        "UPDATE every_type t SET (c_bool, c_int2, c_int4, c_int8, c_float4, c_float8, c_text) =
             (NULL, 7, 7, 7, 7, 7, 'changed') WHERE account_id = 'acme';
         UPDATE every_type t SET c_pair = '(9,z)', c_jsonb = '1', c_bytea = 'z', c_mood = 'sad'
          WHERE account_id = 'acme'",
    );
    let outcome = restore(&ground.store, "acme", &image, 2).unwrap();
    assert_eq!(outcome.counted, outcome.planned);
    assert_eq!(outcome.counted[0].1.put_back, 204);
    assert_eq!(ground.psql(text), before);
    assert_eq!(ground.others(&["every_type"], "acme"), others);
}

/// Far longer than any message or batch.
#[test]
fn values_of_many_megabytes_come_back() {
    let ground = Ground::new(
        "CREATE TABLE documents (id int PRIMARY KEY, account_id text NOT NULL, body text, raw bytea);
         INSERT INTO documents SELECT n, 'acme', 'small ' || n, NULL FROM generate_series(1, 9) n;
         INSERT INTO documents SELECT 100, 'acme', string_agg(md5(n::text), E'\\t\\\\'), NULL
           FROM generate_series(1, 700000) n;
         INSERT INTO documents SELECT 101, 'acme', NULL, decode(string_agg(md5(n::text), ''), 'hex')
           FROM generate_series(1, 700000) n",
    );
    let digest =
        "SELECT md5(string_agg(t::text, '' ORDER BY id)), sum(length(body)), sum(length(raw))
                    FROM documents t";
    let before = ground.psql(digest);
    let image = ground.image("acme");
    ground.psql("DELETE FROM documents");
    restore(&ground.store, "acme", &image, 1).unwrap();
    assert_eq!(ground.psql(digest), before);
}
