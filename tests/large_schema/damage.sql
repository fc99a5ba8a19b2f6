-- What a faulty release does to the accounts in the table hit, beside changing plain values: rows
-- that refer to each other come, go and move, in every kind of cycle.
INSERT INTO projects OVERRIDING SYSTEM VALUE SELECT 9000 + a, a, 'NEW', 'New' FROM hit;
UPDATE accounts SET default_project_id = 9000 + id WHERE id IN (SELECT a FROM hit);
UPDATE issues SET project_id = 9000 + account_id, milestone_number = NULL
 WHERE number % 3 = 0 AND account_id IN (SELECT a FROM hit);
UPDATE issues SET duplicate_of_id = CASE WHEN number > 1 THEN id - 100 END
 WHERE account_id IN (SELECT a FROM hit);
INSERT INTO issues (id, account_id, project_id, number, title)
SELECT 9000 + a, a, 9000 + a, 900, 'new' FROM hit;
INSERT INTO checklists SELECT 9000 + a, 9000 + a FROM hit;
UPDATE checklist_items SET checklist_id = 9000 + id % 100 WHERE id % 100 IN (SELECT a FROM hit);
INSERT INTO milestones SELECT a, 90, 9000 + a FROM hit;
UPDATE folders SET parent_id = CASE WHEN id > 200 THEN 100 + account_id END
 WHERE account_id IN (SELECT a FROM hit);
INSERT INTO folders SELECT 9000 + a, a, 3100 + a, 'new' FROM hit;
UPDATE documents SET folder_id = 9000 + account_id WHERE account_id IN (SELECT a FROM hit);
INSERT INTO comments SELECT 9000 + a, 'Folder', 9000 + a, NULL, 4000 + a, 'new' FROM hit;
UPDATE comments SET commentable_type = 'Issue' WHERE id / 100 < 9 AND id % 100 IN (SELECT a FROM hit);
INSERT INTO reactions SELECT 1, 9000 + a, 100, 'new' FROM hit;
INSERT INTO attachments SELECT 9000 + a, 'folder', 9000 + a, 'new' FROM hit;
DELETE FROM detail_marks WHERE id % 100 IN (SELECT a FROM hit);
DELETE FROM event_details WHERE id % 100 IN (SELECT a FROM hit);
DELETE FROM assignment_events WHERE id % 300 IN (SELECT a FROM hit);
INSERT INTO audit_log SELECT * FROM audit_log WHERE account_id IN (SELECT a FROM hit);
INSERT INTO page_views SELECT * FROM page_views
 WHERE path LIKE '%1' AND project_id % 100 IN (SELECT a FROM hit);
DELETE FROM price_history WHERE sku = 'sku1' AND account_id IN (SELECT a FROM hit);
UPDATE measurements SET sensor = 'b' WHERE sensor = 'c' AND account_id IN (SELECT a FROM hit);
DELETE FROM event_payloads WHERE event_id % 100 IN (SELECT a FROM hit);
DELETE FROM events WHERE id / 100 < 9 AND account_id IN (SELECT a FROM hit);
INSERT INTO events SELECT 9000 + a, '2030-01-01', a, 'new' FROM hit;
-- Neither may be without the other: both are written before the keys are looked at.
INSERT INTO teams SELECT 9000 + a, a, 9000 + a FROM hit;
INSERT INTO team_members SELECT 9000 + a, a, 9000 + a, 100 FROM hit;
UPDATE teams SET lead_id = 9000 + account_id WHERE id / 100 < 4 AND account_id IN (SELECT a FROM hit);
UPDATE team_members SET team_id = 9000 + account_id
 WHERE id / 100 BETWEEN 3 AND 9 AND account_id IN (SELECT a FROM hit);
DELETE FROM team_members WHERE id / 100 BETWEEN 21 AND 30 AND account_id IN (SELECT a FROM hit);
UPDATE desk_agents SET queue_id = 800 + account_id WHERE account_id IN (SELECT a FROM hit);
UPDATE desk_regions SET site_id = 100 + account_id WHERE account_id IN (SELECT a FROM hit);
UPDATE desk_channels SET agent_id = CASE WHEN id > 400 THEN 300 + account_id END
 WHERE account_id IN (SELECT a FROM hit);
INSERT INTO desk_channels SELECT 9000 + a, a, 100 + a FROM hit;
UPDATE desk_crews SET channel_id = 9000 + account_id WHERE account_id IN (SELECT a FROM hit);
INSERT INTO billing.invoices SELECT a, 900, NULL FROM hit;
UPDATE notes SET order_id = NULL, issue_id = 100 + id % 100
 WHERE order_id IS NOT NULL AND id % 100 IN (SELECT a FROM hit);
UPDATE templates SET account_id = account_id WHERE account_id IN (SELECT a FROM hit);
