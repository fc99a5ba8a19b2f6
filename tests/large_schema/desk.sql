-- The help desk: thirteen tables, each of which refers to the next, the last to the first. Three
-- of the keys may be NULL; six of the tables have no tenant of their own, until tight.sql.
CREATE TABLE desk_agents (
    id bigint PRIMARY KEY, account_id bigint NOT NULL REFERENCES accounts, queue_id bigint NOT NULL);
CREATE TABLE desk_queues (id bigint PRIMARY KEY, policy_id bigint NOT NULL, name text);
CREATE TABLE desk_policies (
    id bigint PRIMARY KEY, account_id bigint NOT NULL REFERENCES accounts, calendar_id bigint NOT NULL);
CREATE TABLE desk_calendars (id bigint PRIMARY KEY, region_id bigint NOT NULL, name text);
CREATE TABLE desk_regions (
    id bigint PRIMARY KEY, account_id bigint NOT NULL REFERENCES accounts, site_id bigint);
CREATE TABLE desk_sites (id bigint PRIMARY KEY, contract_id bigint NOT NULL, name text);
CREATE TABLE desk_contracts (
    id bigint PRIMARY KEY, account_id bigint NOT NULL REFERENCES accounts, tier_id bigint NOT NULL);
CREATE TABLE desk_tiers (id bigint PRIMARY KEY, escalation_id bigint NOT NULL, name text);
CREATE TABLE desk_escalations (id bigint PRIMARY KEY, rotation_id bigint NOT NULL, name text);
CREATE TABLE desk_rotations (
    id bigint PRIMARY KEY, account_id bigint NOT NULL REFERENCES accounts, shift_id bigint);
CREATE TABLE desk_shifts (id bigint PRIMARY KEY, crew_id bigint NOT NULL, name text);
CREATE TABLE desk_crews (
    id bigint PRIMARY KEY, account_id bigint NOT NULL REFERENCES accounts, channel_id bigint NOT NULL);
CREATE TABLE desk_channels (
    id bigint PRIMARY KEY, account_id bigint NOT NULL REFERENCES accounts, agent_id bigint);
ALTER TABLE desk_agents ADD FOREIGN KEY (queue_id) REFERENCES desk_queues;
ALTER TABLE desk_queues ADD FOREIGN KEY (policy_id) REFERENCES desk_policies;
ALTER TABLE desk_policies ADD FOREIGN KEY (calendar_id) REFERENCES desk_calendars;
ALTER TABLE desk_calendars ADD FOREIGN KEY (region_id) REFERENCES desk_regions;
ALTER TABLE desk_regions ADD FOREIGN KEY (site_id) REFERENCES desk_sites;
ALTER TABLE desk_sites ADD FOREIGN KEY (contract_id) REFERENCES desk_contracts;
ALTER TABLE desk_contracts ADD FOREIGN KEY (tier_id) REFERENCES desk_tiers;
ALTER TABLE desk_tiers ADD FOREIGN KEY (escalation_id) REFERENCES desk_escalations;
ALTER TABLE desk_escalations ADD FOREIGN KEY (rotation_id) REFERENCES desk_rotations;
ALTER TABLE desk_rotations ADD FOREIGN KEY (shift_id) REFERENCES desk_shifts;
ALTER TABLE desk_shifts ADD FOREIGN KEY (crew_id) REFERENCES desk_crews;
ALTER TABLE desk_crews ADD FOREIGN KEY (channel_id) REFERENCES desk_channels;
ALTER TABLE desk_channels ADD FOREIGN KEY (agent_id) REFERENCES desk_agents;
