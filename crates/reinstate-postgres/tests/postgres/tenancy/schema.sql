-- One table of each shape that real schemas have.
CREATE TABLE accounts (id bigint PRIMARY KEY, name text NOT NULL);
CREATE TABLE users (id bigint PRIMARY KEY, email text NOT NULL UNIQUE);
CREATE TABLE currencies (code text PRIMARY KEY);
CREATE TABLE regions (id bigint PRIMARY KEY, name text);
CREATE TABLE schema_migrations (version text PRIMARY KEY);

-- The tenant in a column: with a key, without one, NULL for some, partitioned, of another type.
CREATE TABLE memberships (
    account_id bigint NOT NULL REFERENCES accounts,
    user_id bigint NOT NULL REFERENCES users,
    PRIMARY KEY (account_id, user_id));
CREATE TABLE customers (
    id bigint PRIMARY KEY,
    account_id bigint NOT NULL REFERENCES accounts,
    name text);
CREATE TABLE orders (
    id bigint PRIMARY KEY,
    account_id bigint NOT NULL REFERENCES accounts,
    customer_id bigint NOT NULL REFERENCES customers,
    replaces_id bigint REFERENCES orders,
    currency text NOT NULL REFERENCES currencies);
CREATE TABLE invoices (id bigint PRIMARY KEY, account_id bigint, number text);
CREATE TABLE pages (id bigint PRIMARY KEY, account_id bigint NOT NULL REFERENCES accounts);
CREATE TABLE tags (id bigint PRIMARY KEY, account_id bigint NOT NULL REFERENCES accounts);
CREATE TABLE visits (id bigint, account_id bigint NOT NULL, at date NOT NULL)
    PARTITION BY RANGE (at);
CREATE TABLE visits_2026 PARTITION OF visits FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE legacy_events (id bigint PRIMARY KEY, account_id text);

-- Under another name, in a table that has to be quoted.
CREATE TABLE "Shop settings" (
    id bigint PRIMARY KEY, owner_id bigint NOT NULL REFERENCES accounts, theme text);

-- Over keys that every row has.
CREATE TABLE order_items (
    id bigint PRIMARY KEY, order_id bigint NOT NULL REFERENCES orders, quantity int);
CREATE TABLE item_notes (
    id bigint PRIMARY KEY, order_item_id bigint NOT NULL REFERENCES order_items, note text);
CREATE SCHEMA billing;
CREATE TABLE billing.lines (
    id bigint PRIMARY KEY, invoice_id bigint NOT NULL REFERENCES public.invoices);
CREATE TABLE order_tags (
    order_id bigint NOT NULL REFERENCES orders,
    tag_id bigint NOT NULL REFERENCES tags,
    PRIMARY KEY (order_id, tag_id));

-- Over keys that prove nothing.
CREATE TABLE shipments (id bigint PRIMARY KEY, order_id bigint NOT NULL);
ALTER TABLE shipments ADD CONSTRAINT shipments_order FOREIGN KEY (order_id) REFERENCES orders
    NOT VALID;
CREATE TABLE feedback (id bigint PRIMARY KEY, page_id bigint REFERENCES pages);
CREATE TABLE feedback_replies (
    id bigint PRIMARY KEY, feedback_id bigint NOT NULL REFERENCES feedback);
CREATE TABLE attachments (
    id bigint PRIMARY KEY,
    order_id bigint REFERENCES orders,
    page_id bigint REFERENCES pages);
CREATE TABLE page_views (id bigint PRIMARY KEY, page_id bigint NOT NULL);
CREATE TABLE comments (
    id bigint PRIMARY KEY,
    commentable_type text NOT NULL,
    commentable_id bigint NOT NULL,
    user_id bigint REFERENCES users);

INSERT INTO accounts VALUES (1, 'one'), (2, 'two');
INSERT INTO users VALUES (1, 'a@example.com'), (2, 'b@example.com');
INSERT INTO currencies VALUES ('EUR');
INSERT INTO memberships VALUES (1, 1), (1, 2), (2, 2);
INSERT INTO customers SELECT a * 100 + n, a, 'c' FROM generate_series(1, 2) a, generate_series(1, 5) n;
INSERT INTO orders SELECT a * 100 + n, a, a * 100 + n, NULL, 'EUR'
    FROM generate_series(1, 2) a, generate_series(1, 5) n;
INSERT INTO invoices SELECT a * 100 + n, a, 'i' FROM generate_series(1, 2) a, generate_series(1, 3) n;
INSERT INTO invoices VALUES (900, NULL, 'template');
INSERT INTO pages VALUES (101, 1), (201, 2);
INSERT INTO tags VALUES (101, 1), (201, 2);
INSERT INTO visits SELECT n, 1 + n % 2, '2026-05-01' FROM generate_series(1, 1200) n;
INSERT INTO "Shop settings" VALUES (1, 1, 'dark'), (2, 2, 'light');
INSERT INTO order_items SELECT id * 10, id, 1 FROM orders;
INSERT INTO item_notes SELECT id * 10, id, 'n' FROM order_items;
INSERT INTO billing.lines SELECT id, id FROM invoices;
INSERT INTO order_tags SELECT id, account_id * 100 + 1 FROM orders;
INSERT INTO shipments SELECT id, id FROM orders;
INSERT INTO feedback VALUES (1, 101), (2, NULL);
INSERT INTO feedback_replies VALUES (1, 1);
INSERT INTO attachments VALUES (1, 101, NULL), (2, NULL, 201);
INSERT INTO page_views VALUES (1, 101), (2, 201);
INSERT INTO comments VALUES (1, 'Order', 101, 1), (2, 'Shop::Invoice', 201, 2);
ANALYZE;
