-- For keys that cannot wait: every table of the ring gets the tenant, as a restore then needs it.
SELECT format('ALTER TABLE %I ADD account_id bigint REFERENCES accounts', name),
       format('UPDATE %I SET account_id = id %% 100', name),
       format('ALTER TABLE %I ALTER account_id SET NOT NULL', name)
  FROM unnest(ARRAY['desk_queues', 'desk_calendars', 'desk_sites', 'desk_tiers', 'desk_escalations',
                    'desk_shifts']) AS name \gexec
