-- The tables with the columns on which nothing else depends, and what spoils their values.
SELECT relation, string_agg(name || ' = ' || value, ', ') FROM (
    SELECT CASE c.relkind WHEN 'r' THEN 'ONLY ' ELSE '' END || a.attrelid::regclass AS relation,
           quote_ident(a.attname) AS name,
           CASE WHEN NOT a.attnotnull AND a.attnum % 2 = 0 THEN 'NULL'
                WHEN t.oid = ANY ('{text,varchar,bpchar}'::regtype[])
                THEN format('reverse(%I)', a.attname)
                WHEN t.oid = ANY ('{int4,float8}'::regtype[]) THEN format('1 - %I', a.attname)
                WHEN t.oid = ANY ('{timestamp,timestamptz,interval}'::regtype[])
                THEN format('%I + interval ''1 h''', a.attname)
                WHEN t.oid = 'bool'::regtype THEN format('NOT %I', a.attname)
                WHEN NOT a.attnotnull THEN 'NULL' END AS value
      FROM pg_attribute a
      JOIN pg_class c ON c.oid = a.attrelid
      JOIN pg_type t ON t.oid = a.atttypid
      LEFT JOIN pg_partitioned_table p ON p.partrelid = c.oid
     WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
       AND t.typtype <> 'd'
       AND c.relnamespace IN ('public'::regnamespace, 'billing'::regnamespace)
       AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND a.attidentity = ''
       AND a.attname !~ '(^|_)(id|type|kind)$' AND NOT a.attnum = ANY (coalesce(p.partattrs, ''))
       AND NOT EXISTS (
           SELECT FROM pg_depend d
             LEFT JOIN pg_index i ON d.classid = 'pg_class'::regclass AND i.indexrelid = d.objid
            WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid
              AND d.refobjsubid = a.attnum
              AND (d.classid = 'pg_constraint'::regclass OR i.indisunique))) AS columns
 WHERE value IS NOT NULL GROUP BY relation ORDER BY relation
