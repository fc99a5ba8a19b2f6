-- The nine tables of TPC-C, small: 10 warehouses of 10 districts of 30 customers, 200 items.
CREATE TABLE warehouse (
    w_id int PRIMARY KEY, w_name text, w_tax numeric(4,4), w_ytd numeric(12,2) NOT NULL);
CREATE TABLE district (
    d_w_id int REFERENCES warehouse, d_id int, d_name text, d_tax numeric(4,4),
    d_ytd numeric(12,2) NOT NULL, d_next_o_id int NOT NULL, PRIMARY KEY (d_w_id, d_id));
CREATE TABLE customer (
    c_w_id int, c_d_id int, c_id int, c_last text, c_balance numeric(12,2) NOT NULL,
    c_ytd_payment numeric(12,2) NOT NULL, c_payment_cnt int NOT NULL, c_data text,
    PRIMARY KEY (c_w_id, c_d_id, c_id), FOREIGN KEY (c_w_id, c_d_id) REFERENCES district);
CREATE INDEX customer_by_name ON customer (c_w_id, c_d_id, c_last);
-- No key: two payments may be the same.
CREATE TABLE history (
    h_c_id int, h_c_d_id int, h_c_w_id int, h_d_id int, h_w_id int, h_date timestamptz,
    h_amount numeric(6,2), FOREIGN KEY (h_c_w_id, h_c_d_id, h_c_id) REFERENCES customer,
    FOREIGN KEY (h_w_id, h_d_id) REFERENCES district);
CREATE INDEX ON history (h_w_id);
CREATE TABLE item (i_id int PRIMARY KEY, i_name text, i_price numeric(5,2));
CREATE TABLE stock (
    s_w_id int REFERENCES warehouse, s_i_id int REFERENCES item, s_quantity int NOT NULL,
    s_ytd int NOT NULL, s_order_cnt int NOT NULL, s_remote_cnt int NOT NULL,
    PRIMARY KEY (s_w_id, s_i_id));
CREATE TABLE orders (
    o_w_id int, o_d_id int, o_id int, o_c_id int, o_entry_d timestamptz, o_carrier_id int,
    o_ol_cnt int NOT NULL, PRIMARY KEY (o_w_id, o_d_id, o_id),
    FOREIGN KEY (o_w_id, o_d_id, o_c_id) REFERENCES customer);
CREATE TABLE new_order (
    no_w_id int, no_d_id int, no_o_id int, PRIMARY KEY (no_w_id, no_d_id, no_o_id),
    FOREIGN KEY (no_w_id, no_d_id, no_o_id) REFERENCES orders);
CREATE TABLE order_line (
    ol_w_id int, ol_d_id int, ol_o_id int, ol_number int, ol_i_id int, ol_supply_w_id int,
    ol_delivery_d timestamptz, ol_quantity int, ol_amount numeric(6,2) NOT NULL,
    PRIMARY KEY (ol_w_id, ol_d_id, ol_o_id, ol_number),
    FOREIGN KEY (ol_w_id, ol_d_id, ol_o_id) REFERENCES orders,
    FOREIGN KEY (ol_supply_w_id, ol_i_id) REFERENCES stock);

INSERT INTO item SELECT n, 'item ' || n, 1 + n % 99 FROM generate_series(1, 200) n;
INSERT INTO warehouse SELECT w, 'w' || w, 0.1, 0 FROM generate_series(1, 10) w;
INSERT INTO district SELECT w, d, 'd' || d, 0.05, 0, 1
  FROM generate_series(1, 10) w, generate_series(1, 10) d;
INSERT INTO customer SELECT w, d, c, 'NAME' || c % 7, 0, 0, 0, repeat('data ', c)
  FROM generate_series(1, 10) w, generate_series(1, 10) d, generate_series(1, 30) c;
INSERT INTO stock SELECT w, i, 50, 0, 0, 0 FROM generate_series(1, 10) w, generate_series(1, 200) i;

-- A warehouse that is not among `others` is neither supplied from nor paid to.
CREATE FUNCTION new_order(w int, others int[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    d int := 1 + floor(random() * 10);
    c int := 1 + floor(random() * 30);
    lines int := 5 + floor(random() * 11);
    o int; i int; supplier int; quantity int; price numeric;
BEGIN
    UPDATE district SET d_next_o_id = d_next_o_id + 1 WHERE d_w_id = w AND d_id = d
        RETURNING d_next_o_id - 1 INTO o;
    INSERT INTO orders VALUES (w, d, o, c, now(), NULL, lines);
    INSERT INTO new_order VALUES (w, d, o);
    -- In the order of items, so that two orders do not wait for each other.
    FOR n IN 1..lines LOOP
        i := (n - 1) * 13 + 1 + floor(random() * 13);
        quantity := 1 + floor(random() * 10);
        supplier := w;
        IF random() < 0.05 AND array_length(others, 1) > 0 THEN
            supplier := others[1 + floor(random() * array_length(others, 1))];
        END IF;
        UPDATE stock SET s_quantity = CASE WHEN s_quantity >= quantity + 10
                THEN s_quantity - quantity ELSE s_quantity - quantity + 91 END,
                s_ytd = s_ytd + quantity, s_order_cnt = s_order_cnt + 1,
                s_remote_cnt = s_remote_cnt + (supplier <> w)::int
            WHERE s_w_id = supplier AND s_i_id = i;
        SELECT i_price INTO price FROM item WHERE i_id = i;
        INSERT INTO order_line VALUES (w, d, o, n, i, supplier, NULL, quantity, quantity * price);
    END LOOP;
END $$;

CREATE FUNCTION payment(w int, others int[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    d int := 1 + floor(random() * 10);
    cw int := w;
    cd int := 1 + floor(random() * 10);
    c int := 1 + floor(random() * 30);
    amount numeric := 1 + floor(random() * 5000);
BEGIN
    IF random() < 0.15 AND array_length(others, 1) > 0 THEN
        cw := others[1 + floor(random() * array_length(others, 1))];
    END IF;
    UPDATE warehouse SET w_ytd = w_ytd + amount WHERE w_id = w;
    UPDATE district SET d_ytd = d_ytd + amount WHERE d_w_id = w AND d_id = d;
    UPDATE customer SET c_balance = c_balance - amount, c_ytd_payment = c_ytd_payment + amount,
            c_payment_cnt = c_payment_cnt + 1
        WHERE c_w_id = cw AND c_d_id = cd AND c_id = c;
    INSERT INTO history VALUES (c, cd, cw, d, w, now(), amount);
END $$;

CREATE FUNCTION delivery(w int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    o int; c int; total numeric;
BEGIN
    FOR d IN 1..10 LOOP
        DELETE FROM new_order WHERE no_w_id = w AND no_d_id = d AND no_o_id =
            (SELECT min(no_o_id) FROM new_order WHERE no_w_id = w AND no_d_id = d)
            RETURNING no_o_id INTO o;
        CONTINUE WHEN o IS NULL;
        UPDATE orders SET o_carrier_id = 1 + floor(random() * 10)
            WHERE o_w_id = w AND o_d_id = d AND o_id = o RETURNING o_c_id INTO c;
        UPDATE order_line SET ol_delivery_d = now()
            WHERE ol_w_id = w AND ol_d_id = d AND ol_o_id = o;
        SELECT sum(ol_amount) INTO total FROM order_line
            WHERE ol_w_id = w AND ol_d_id = d AND ol_o_id = o;
        UPDATE customer SET c_balance = c_balance + total
            WHERE c_w_id = w AND c_d_id = d AND c_id = c;
    END LOOP;
END $$;
