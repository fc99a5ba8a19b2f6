-- Rows of the uncommon tables.
INSERT INTO key_of_many SELECT a, (ARRAY['z', 'a', 'm'])[n % 3 + 1]::billing.stage, 'x' || n,
       CASE WHEN n = 4 THEN 'infinity' WHEN n = 3 THEN '-infinity' ELSE date '0044-03-15 BC' + n END,
       ('10.0.0.' || n || '/24')::inet, n + 0.10, n % 2 = 0, 'n' || n FROM grid WHERE n <= 12;
INSERT INTO key_of_float SELECT row_number() OVER (ORDER BY key) % 12 + 1, key, 'f'
  FROM unnest('{NaN,Infinity,-Infinity,-0,-1e-300,1e300,5e-324,0.1,0.30000000000000004}'::float8[]) key;
INSERT INTO key_of_float SELECT a, n * 100.1 + a / 7.0, 'g' FROM grid WHERE n <= 5;
INSERT INTO key_of_bytes SELECT a, decode(repeat('0a5c00', n) || lpad(a::text, 2, '0'), 'hex'), 'b'
       FROM grid WHERE n <= 6;
INSERT INTO key_of_range SELECT a, int4range(n, n * 100 + a), 'r' FROM grid WHERE n <= 6;
INSERT INTO key_of_json SELECT a, jsonb_build_object('n', n, 'x', 1.0, 'a', a), 'j' FROM grid
       WHERE n <= 6;
INSERT INTO key_of_array SELECT a, ARRAY[n, NULL, a], 'a', 'y' FROM grid WHERE n <= 6;
INSERT INTO key_of_row SELECT a, ROW(n, '")\', NULL, a % 10)::postal_address, 'w' || a
  FROM (SELECT n * 100 + a AS n, a FROM grid WHERE n <= 6) AS g;
INSERT INTO key_of_numeric SELECT a, (n * 100 + a || '.' || repeat('0', n))::numeric, 'm' FROM grid
       WHERE n <= 6;
INSERT INTO key_of_numeric VALUES (3, 'NaN', ''), (8, 'Infinity', ''), (12, '-Infinity', '');
INSERT INTO key_of_interval SELECT a, (n * 100 + a) * interval '1 day 24 hours', 'i' FROM grid
       WHERE n <= 6;
INSERT INTO key_of_text SELECT a, pg_temp.odd_text(n) || E'\t' || a || '/' || n, pg_temp.odd_text(n)
       FROM grid WHERE n <= 28;

INSERT INTO sketches SELECT a, '{"a": 1, "a": 2}', point(1, n % 2), '(1,1),(0,0)', '<a> <!-- b --></a>'
       FROM grid WHERE n <= 9;
INSERT INTO clicks SELECT a FROM grid WHERE n <= a;
INSERT INTO board_columns SELECT n * 100 + a, a, n FROM grid WHERE n <= 9;
INSERT INTO phone_numbers SELECT n * 100 + a, a, CASE WHEN n > 1 THEN '+32' || n END, NULL FROM grid
       WHERE n <= 9;
INSERT INTO assets SELECT n * 100 + a, a, 'asset' FROM grid WHERE n <= 9;
INSERT INTO retired_assets SELECT n * 100 + a, a, 'retired', '1999-12-31' FROM grid
       WHERE n BETWEEN 5 AND 12;
INSERT INTO vehicles SELECT n * 100 + a, 'BE-' || n, CASE WHEN n > 2 THEN (n - 2) * 100 + a END
       FROM grid WHERE n <= 9;
INSERT INTO "v1.imports" SELECT pg_temp.odd_text(n), a, n * 100 + a, n, n, pg_temp.odd_text(n + 1)
       FROM grid WHERE n <= 14;
INSERT INTO uploads SELECT 100 + a, a, decode(repeat(md5(a::text), 20000), 'hex'), repeat(md5(a::text),
       8000) FROM generate_series(1, 12) a;
INSERT INTO wide SELECT n * 100 + a, a FROM grid WHERE n <= 3;
INSERT INTO visits (id, account_id, site, day, before_id, before_day, before_site)
SELECT n * 100 + a, a, chr(97 + n % 3), date '2024-06-01' + n * 10,
       CASE WHEN n > 3 THEN (n - 3) * 100 + a END,
       date '2024-06-01' + (n - 3) * 10, chr(97 + n % 3) FROM grid WHERE n <= 40;
