-- Rows of the special tables: account a of grid has the ids that end with a, everybody's end with
-- 00, so that whose a row is can be told without following a single key.
INSERT INTO schema_migrations SELECT '2024' || n FROM generate_series(1, 30) n;
INSERT INTO currencies VALUES ('EUR', 'Euro', 1), ('USD', 'Dollar', 1.08), ('XXX', 'none', 'NaN');
INSERT INTO countries SELECT n, chr(64 + n) || chr(90 - n), 'country ' || n
  FROM generate_series(1, 26) n;
INSERT INTO users SELECT n * 100, 'User' || n || '@example.com', 'U' || n,
       CASE WHEN n % 3 > 0 THEN chr(64 + n % 26 + 1) || chr(89 - n % 26) END,
       CASE WHEN n > 35 THEN timestamptz '2024-02-29 12:00+00' END FROM generate_series(1, 40) n;
INSERT INTO users SELECT 5000 + n * 100, 'user' || n || '@EXAMPLE.com' FROM generate_series(36, 40) n;
INSERT INTO user_preferences SELECT u.id, p, to_jsonb(u.name) FROM users u, unnest(ARRAY['tz', 'ui']) p;

INSERT INTO accounts SELECT a, 'slug-' || a, 'Account ' || a, a * 100, 'EUR', 100 + a,
       CASE WHEN a = 11 THEN timestamptz 'infinity' END FROM generate_series(1, 12) a;
INSERT INTO memberships SELECT a, ((n * 7 + a) % 40 + 1) * 100,
       (ARRAY['owner', 'admin', 'member', 'Guest, external'])[n % 4 + 1]::member_role,
       CASE WHEN n > 1 THEN 100 END FROM grid WHERE n <= 12;
INSERT INTO account_settings SELECT a, jsonb_build_object('b', a, 'a', ARRAY['x', NULL], '',
       '{}'::jsonb),
       ARRAY['10.0.0.0/8', '::1/128']::cidr[], int4range(8, 8 + a), decode(repeat('00ff5c0a', a), 'hex')
  FROM generate_series(1, 12) a;
INSERT INTO api_tokens SELECT pg_temp.uuid_of(n * 100 + a), a, (n % 40 + 1) * 100,
       'token-' || a || '-' || n,
       decode(md5(n || '/' || a), 'hex'), ARRAY['read', 'write:' || n, 'a,b', '"', 'NULL'] FROM grid
       WHERE n <= 10;
INSERT INTO sessions SELECT md5('session' || n || '/' || a), a, ('10.0.' || a || '.' || n)::inet,
       '{"b": 1,  "a": 2, "b": 3}', timestamptz '2025-01-01 00:00+00' + n * interval '1.000001 s'
       FROM grid WHERE n <= 20;

INSERT INTO projects OVERRIDING SYSTEM VALUE
SELECT n * 100 + a, a, 'P' || n, 'Project ' || n,
       CASE WHEN n = 5 THEN timestamptz '2024-05-05 05:05+05' END
  FROM grid WHERE n <= 5;
INSERT INTO folders SELECT n * 100 + a, a, CASE WHEN n > 1 THEN (n / 2) * 100 + a END, 'Folder ' || n
       FROM grid WHERE n <= 31;
INSERT INTO documents SELECT pg_temp.uuid_of(n * 100 + a), a, (n % 31 + 1) * 100 + a,
       pg_temp.odd_text(n), decode(md5('d' || n), 'hex')
  FROM grid WHERE n <= 20;
INSERT INTO document_versions SELECT pg_temp.uuid_of(n * 100 + a), v, pg_temp.odd_text(n + v)
  FROM grid, generate_series(1, 3) v WHERE n <= 20;
INSERT INTO milestones SELECT a, n, (n % 5 + 1) * 100 + a, 'M' || n, date '2025-01-01' + n FROM grid
       WHERE n <= 6;
INSERT INTO issues (id, account_id, project_id, number, milestone_number, duplicate_of_id, title, body,
       estimate, deleted_at)
SELECT n * 100 + a, a, (n % 5 + 1) * 100 + a, n, CASE WHEN n % 3 > 0 THEN n % 6 + 1 END,
       CASE WHEN n % 4 = 0 THEN ((n + 10) % 40 + 1) * 100 + a END, pg_temp.odd_text(n),
       CASE WHEN n % 2 > 0 THEN pg_temp.odd_text(n + 5) END,
       n * interval '1 month 2 days 3.5 s',
       CASE WHEN n % 9 = 0 THEN timestamptz '2025-03-30 01:00+00' END
  FROM grid WHERE n <= 40;
INSERT INTO checklists SELECT n * 100 + a, n * 100 + a, 'C' || n FROM grid WHERE n <= 30;
INSERT INTO checklist_items SELECT n * 100 + a, (n % 30 + 1) * 100 + a, n % 2 = 0 FROM grid
       WHERE n <= 40;
INSERT INTO item_assignments SELECT n * 100 + a, (n % 40 + 1) * 100 + a, (n % 40 + 1) * 100 FROM grid
       WHERE n <= 40;
INSERT INTO assignment_events SELECT n * 100 + a, (n % 40 + 1) * 100 + a, '-infinity' FROM grid
       WHERE n <= 40;
INSERT INTO event_details SELECT n * 100 + a, (n % 40 + 1) * 100 + a, to_jsonb(pg_temp.odd_text(n))
       FROM grid WHERE n <= 40;
INSERT INTO detail_marks SELECT n * 100 + a, (n % 40 + 1) * 100 + a, chr(32 + n)::"char" FROM grid
       WHERE n <= 40;
INSERT INTO labels SELECT n * 100 + a, a, 'Label ' || n % 8,
       CASE WHEN n > 8 THEN timestamptz '2025-01-01 00:00+00' END
  FROM grid WHERE n BETWEEN 1 AND 16;
UPDATE labels SET name = upper(name) WHERE deleted_at IS NOT NULL;
INSERT INTO issue_labels SELECT n * 100 + a, (n % 16 + 1) * 100 + a FROM grid WHERE n <= 40;

INSERT INTO comments SELECT n * 100 + a, (ARRAY['Issue', 'Shop::Order', 'Folder'])[n % 3 + 1],
       ((n - 1) % 20 + 1) * 100 + a,
       CASE WHEN n % 5 > 0 THEN (n % 40 + 1) * 100 END, CASE WHEN n > 3 THEN (n - 3) * 100 + a END,
       pg_temp.odd_text(n) FROM grid WHERE n <= 40;
INSERT INTO attachments SELECT n * 100 + a, (ARRAY['issue', 'order',
       'folder'])[n % 3 + 1]::subject_kind,
       (n % 20 + 1) * 100 + a, pg_temp.odd_text(n), decode(repeat(md5('a' || n), n), 'hex') FROM grid
       WHERE n <= 30;
INSERT INTO attachments SELECT n * 100, NULL, CASE WHEN n % 2 > 0 THEN n END, 'stock ' || n
       FROM generate_series(1, 10) n;
INSERT INTO reactions SELECT n % 2 + 1, n * 100 + a, (u * 13 + n) % 40 * 100 + 100,
       E'\U0001F44D\U0001F3FD'
  FROM grid, generate_series(1, 2) u WHERE n <= 30;
INSERT INTO page_views SELECT (n % 5 + 1) * 100 + a, '/issues?q=' || n % 3,
       timestamptz '2025-01-01 00:00+00' + n % 4 * interval '1 day'
  FROM grid, generate_series(1, 2) WHERE n <= 40;
INSERT INTO page_views SELECT CASE WHEN n % 2 > 0 THEN 999900 END, '/', NULL FROM generate_series(1,
       10) n;
INSERT INTO search_log SELECT n * 100 + a, n::text, n * 100 + a, ARRAY[pg_temp.odd_text(n), NULL]
       FROM grid WHERE n <= 20;
INSERT INTO search_log SELECT n * 100, 'nothing', NULL FROM generate_series(1, 5) n;
INSERT INTO audit_log SELECT nullif(a, 12), 'system',
       CASE WHEN n % 4 > 0 THEN '{"was": null}'::jsonb END, timestamptz '2024-12-31 23:59:59.999999+00'
  FROM grid WHERE n <= 30;

INSERT INTO customers SELECT n * 100 + a, a, 'C-' || n || '-' || a,
       'Buyer' || n || '@Shop' || a || '.example',
       ROW('Street "' || n || '", (left)', E'Li\u00e8ge', '40 00', 'BE')::postal_address,
       ARRAY[ROW(NULL, '', NULL, 'FR'), NULL]::postal_address[], ARRAY[['a', 'b,c'], ['{}', NULL]]
       FROM grid WHERE n <= 20;
INSERT INTO coupons SELECT n * 100 + a, a, 'CODE' || n || '/' || a, n + 0.0001 FROM grid WHERE n <= 8;
INSERT INTO orders SELECT n * 100 + a, a, ((n - 1) % 20 + 1) * 100 + a,
       CASE WHEN n % 2 > 0 THEN 'EUR' ELSE 'USD' END,
       timestamptz '2025-06-01 00:00+00' + n * interval '1 hour',
       CASE WHEN n <= 20 THEN 'open' ELSE 'paid' END FROM grid WHERE n <= 40;
INSERT INTO order_lines SELECT n * 100 + a, l, n, l * 1.25 FROM grid, generate_series(1, 3) l
       WHERE n <= 40;
INSERT INTO shipments SELECT n * 100 + a, n * 100 + a, n % 3 + 1, tstzrange('2025-01-01 00:00+00', NULL,
       '()') FROM grid WHERE n <= 40;
INSERT INTO coupon_uses SELECT 'CODE' || n % 8 + 1 || '/' || a, n * 100 + a FROM grid WHERE n <= 20;
INSERT INTO notes SELECT n * 100 + a, CASE WHEN n % 3 = 0 THEN n * 100 + a END,
       CASE WHEN n % 3 = 1 THEN n * 100 + a END,
       CASE WHEN n % 3 = 2 THEN (n % 20 + 1) * 100 + a END, pg_temp.odd_text(n) FROM grid WHERE n <= 40;
INSERT INTO bookings SELECT n * 100 + a, a, tstzrange(t, t + interval '1 hour')
  FROM (SELECT n, a, timestamptz '2025-01-01 00:00+00' + (n * 12 + a) * interval '1 hour' AS t
       FROM grid WHERE n <= 20) s;
INSERT INTO price_history SELECT a, 'sku' || n % 4, (n % 3)::money, daterange('2025-01-01', NULL)
       FROM grid WHERE n <= 20;

INSERT INTO events SELECT n * 100 + a, timestamptz '2024-01-01 00:00+00' + n * interval '20 days', a,
       'k' || n % 3 FROM grid WHERE n <= 40;
INSERT INTO event_payloads SELECT id, happened_at, jsonb_build_object('n', id) FROM events
       WHERE id / 100 % 2 = 0;
INSERT INTO measurements SELECT a, (ARRAY['a', 'b', 'c', NULL])[n % 4 + 1], (ARRAY['NaN', 'Infinity',
       '-0', '1e-40'])[n % 4 + 1]::float4
  FROM grid WHERE n <= 24;
INSERT INTO templates SELECT n * 100 + a, nullif(a, 0), 'T' || n FROM generate_series(1, 5) n,
       generate_series(0, 12) a;
INSERT INTO template_steps SELECT t.id * 10 + s, t.id, 'step ' || s FROM templates t, generate_series(1,
       3) s;
INSERT INTO teams SELECT n * 100 + a, a, n * 100 + a FROM grid WHERE n <= 10;
INSERT INTO team_members SELECT n * 100 + a, a, ((n - 1) % 10 + 1) * 100 + a, (n % 40 + 1) * 100
       FROM grid WHERE n <= 30;

INSERT INTO "Type zoo, ""quoted"""
SELECT n * 100 + a, a, CASE WHEN n % 5 > 0 THEN pg_temp.odd_text(n) END, pg_temp.odd_text(n + 3),
       (ARRAY['NaN', '0.00', '-0.10', '1e40', '123456789012345678901234567890.123456789',
       'Infinity'])[n % 6 + 1]::numeric,
       (ARRAY['NaN', 'Infinity', '-Infinity', '-0', '5e-324', '0.1'])[n % 6 + 1]::float8,
       (ARRAY['NaN', '-Infinity', '1e-45', '0.1'])[n % 4 + 1]::float4, '10110'::bit varying,
       '08:00:2b:01:02:03', '24:00:00+05:45',
       '{[1,3),[7,)}', point(n, 1e300), '<a b="c">&lt;</a>', ARRAY[pg_temp.odd_text(n),
       pg_temp.odd_text(n + 1), NULL, ''],
       '[0:1][-1:0]={{1,NaN},{NULL,-2.50}}', ARRAY[ROW('', NULL, '"', 'x')]::postal_address[],
       ARRAY['Guest, external', 'owner']::member_role[],
       '''a b'' & !c:*B', '$.a[*] ? (@ > 1)' FROM grid WHERE n <= 30;

INSERT INTO billing.invoices SELECT a, n, CASE WHEN n > 3 THEN n * 100 + a END,
       CASE WHEN n % 2 > 0 THEN date '2025-02-28' ELSE 'infinity' END
  FROM grid WHERE n <= 15;
INSERT INTO billing.lines SELECT a, n, l, pg_temp.odd_text(l) FROM grid, generate_series(1, 3) l
       WHERE n <= 15;
INSERT INTO billing.orders SELECT n * 100 + a, a, 'plan' || n FROM grid WHERE n <= 3;
INSERT INTO billing.plans SELECT 'plan' || n, n FROM generate_series(1, 5) n;

INSERT INTO desk_agents SELECT n * 100 + a, a, n * 100 + a FROM grid WHERE n <= 8;
INSERT INTO desk_queues SELECT n * 100 + a, n * 100 + a, 'q' FROM grid WHERE n <= 8;
INSERT INTO desk_policies SELECT n * 100 + a, a, (n % 8 + 1) * 100 + a FROM grid WHERE n <= 8;
INSERT INTO desk_calendars SELECT n * 100 + a, n * 100 + a, pg_temp.odd_text(n) FROM grid WHERE n <= 8;
INSERT INTO desk_regions SELECT n * 100 + a, a, CASE WHEN n % 3 > 0 THEN n * 100 + a END FROM grid
       WHERE n <= 8;
INSERT INTO desk_sites SELECT n * 100 + a, n * 100 + a, 's' FROM grid WHERE n <= 8;
INSERT INTO desk_contracts SELECT n * 100 + a, a, n * 100 + a FROM grid WHERE n <= 8;
INSERT INTO desk_tiers SELECT n * 100 + a, n * 100 + a, 't' FROM grid WHERE n <= 8;
INSERT INTO desk_escalations SELECT n * 100 + a, n * 100 + a, 'e' FROM grid WHERE n <= 8;
INSERT INTO desk_rotations SELECT n * 100 + a, a, CASE WHEN n % 2 > 0 THEN n * 100 + a END FROM grid
       WHERE n <= 8;
INSERT INTO desk_shifts SELECT n * 100 + a, n * 100 + a, 'h' FROM grid WHERE n <= 8;
INSERT INTO desk_crews SELECT n * 100 + a, a, n * 100 + a FROM grid WHERE n <= 8;
INSERT INTO desk_channels SELECT n * 100 + a, a, CASE WHEN n % 4 > 0 THEN n * 100 + a END FROM grid
       WHERE n <= 8;
REFRESH MATERIALIZED VIEW order_totals;
