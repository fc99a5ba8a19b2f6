-- What the rows are made with; gone with the session.
CREATE TEMPORARY TABLE grid AS
    SELECT n, a FROM generate_series(1, 40) n, generate_series(1, 12) a ORDER BY n, a;
-- For ordinary tables, which can have so many times the rows.
CREATE TEMPORARY TABLE long_grid AS
    SELECT n, a FROM generate_series(1, 40 * :times) n, generate_series(1, 12) a ORDER BY n, a;
-- An identifier whose last digits, read as decimals, are the number's.
CREATE FUNCTION pg_temp.uuid_of(number bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT (left(md5(number::text), 20) || lpad(number::text, 12, '0'))::uuid $$;
-- Text with every character that somebody might want to escape.
CREATE FUNCTION pg_temp.odd_text(number bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT (ARRAY[
        'plain', '', ' ', E'tab\tline\nreturn\rbackslash\\', E'\\N', E'\\.', 'NULL', '{"a": [1]}',
        E'\u0001\u001f\u007f\u0080\u200b\ufeff', E'e\u0301 \u00e9 \u202eabc \U0001F468\u200d\U0001F469',
        'it''s "quoted", (so) {it} $is$ %d', repeat('long ', 500), E'\uffff\U0010ffff', '<&>;--/*',
        (SELECT string_agg(chr(n), '') FROM generate_series(1, 383) n)
    ])[number % 15 + 1] || CASE WHEN number % 3 = 0 THEN '' ELSE number::text END $$;
