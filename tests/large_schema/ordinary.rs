//! The tables that every application has many of: an id, a parent, some columns.

/// How many there are of them.
const COUNT: usize = 65;

/// The longest way from a table to the account, in references.
const HOPS_MAX: usize = 6;

/// The most rows that an account has in a table.
const ROWS_MAX: u64 = 30;

const AREAS: [&str; 9] = [
    "crm", "hr", "fleet", "stock", "survey", "forum", "course", "ledger", "asset",
];
const THINGS: [&str; 10] = [
    "records", "batches", "items", "entries", "states", "rules", "members", "reports", "links",
    "steps",
];

/// Columns and their values in row `n` of account `a`.
const COLUMNS: [(&str, &str, &str); 18] = [
    ("title", "text", "pg_temp.odd_text(n)"),
    ("body", "text", "pg_temp.odd_text(n + 4)"),
    ("position", "int", "n * 7 % 13 - 3"),
    ("weight", "float8", "n / 7.0"),
    (
        "price",
        "numeric(12, 2)",
        "CASE WHEN n = 9 THEN 'NaN' ELSE n * 1.1 END",
    ),
    ("is_active", "boolean", "n % 3 = 0"),
    (
        "created_at",
        "timestamptz",
        "timestamptz '2025-03-30 00:30+00' + n * interval '7 h'",
    ),
    (
        "updated_at",
        "timestamp",
        "timestamp '2025-10-26 02:30' - n * interval '0.000001 s'",
    ),
    (
        "starts_on",
        "date",
        "CASE WHEN n = 7 THEN 'infinity' ELSE date '0001-01-01 BC' + n END",
    ),
    ("duration", "interval", "n * interval '-1 day 25 h'"),
    (
        "options",
        "jsonb",
        "jsonb_build_object('n', n, 'text', pg_temp.odd_text(n))",
    ),
    (
        "external_id",
        "uuid UNIQUE",
        "md5(n || '/' || a || '/TABLE')::uuid",
    ),
    (
        "slug",
        "varchar(60) UNIQUE",
        "'slug/' || n || '/' || a || chr(9)",
    ),
    ("tags", "text[]", "ARRAY[pg_temp.odd_text(n), NULL, 'x']"),
    ("checksum", "bytea", "decode(md5(n::text), 'hex')"),
    ("status", "char(6)", "'st' || n % 4"),
    ("host", "inet", "'2001:db8::'::inet + n"),
    (
        "valid",
        "daterange",
        "daterange('2025-01-01', date '2025-01-01' + n)",
    ),
];

/// An ordinary table.
pub struct Ordinary {
    pub name: String,
    /// SQL that tells whose a row is.
    pub owner: &'static str,
    /// What makes it.
    pub definition: String,
    /// What fills it.
    pub rows: String,
    /// How many rows each account has.
    row_count: u64,
    /// How many references lead from it to the account; none if it is everybody's.
    hops: Option<usize>,
    /// Whether its key is the account and a number.
    has_account_in_key: bool,
    /// Whether others may refer to it: it has a primary key.
    is_parent: bool,
}

/// What a table is made of while it is put together.
struct Parts {
    name: String,
    columns: Vec<String>,
    /// The names of the columns that are filled, and with what.
    filled: Vec<(String, String)>,
    hops: Option<usize>,
}

/// Numbers that are the same for the same seed (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    /// Whether something of so many percent happens.
    fn happens(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<'t, T>(&mut self, all: &'t [T]) -> Option<&'t T> {
        let count = u64::try_from(all.len()).ok().filter(|count| *count > 0)?;
        let place = usize::try_from(self.below(count)).ok()?;
        all.get(place)
    }
}

/// Ordinary tables, the same ones for the same seed; each refers to earlier ones only, and has so many
/// times the rows.
pub fn tables(seed: u64, times: u64) -> Vec<Ordinary> {
    let mut numbers = Numbers(seed);
    let mut tables: Vec<Ordinary> = Vec::with_capacity(COUNT);
    for number in 0..COUNT {
        let area = AREAS[number % AREAS.len()];
        let thing = THINGS[number / AREAS.len() % THINGS.len()];
        let name = format!("app_{area}_{thing}");
        let table = table(&mut numbers, &tables, name, times);
        tables.push(table);
    }
    tables
}

fn table(numbers: &mut Numbers, earlier: &[Ordinary], name: String, times: u64) -> Ordinary {
    let mut parts = Parts {
        name,
        columns: Vec::new(),
        filled: Vec::new(),
        hops: Some(0),
    };
    let row_count = (4 + numbers.below(ROWS_MAX - 3)) * times;
    let owned: Vec<&Ordinary> = earlier
        .iter()
        .filter(|table| table.is_parent && table.hops.is_some_and(|hops| hops < HOPS_MAX))
        .collect();
    let kind = numbers.below(100);
    let has_account_in_key = kind < 6;
    if has_account_in_key {
        parts.add("account_id", "bigint NOT NULL REFERENCES accounts", "a");
        parts.add("number", "int NOT NULL", "n");
    } else if kind < 14 {
        parts.hops = None;
        parts.add("id", id_column(numbers), "n * 100");
    } else {
        parts.add("id", id_column(numbers), "n * 100 + a");
    }
    match numbers.pick(&owned) {
        _ if parts.hops.is_none() || has_account_in_key => (),
        Some(parent) if kind >= 18 => parts.add_parent(parent, "parent", true),
        _ => parts.add("account_id", "bigint NOT NULL REFERENCES accounts", "a"),
    }
    // A second parent says nothing about the owner: its key may be NULL.
    if let Some(parent) = numbers.pick(&owned)
        && parts.hops.is_some()
        && numbers.happens(30)
    {
        parts.add_parent(parent, "other", false);
    }
    let shared: Vec<&Ordinary> = earlier
        .iter()
        .filter(|table| table.is_parent && table.hops.is_none())
        .collect();
    if let Some(parent) = numbers.pick(&shared)
        && numbers.happens(40)
    {
        parts.add_parent(parent, "lookup", true);
    }
    let first = numbers.below(18);
    for place in 0..3 + numbers.below(6) {
        let at = usize::try_from((first + place * 5) % 18).unwrap_or(0);
        parts.add_plain(COLUMNS[at], numbers.happens(40));
    }
    parts.finish(numbers, row_count, has_account_in_key)
}

fn id_column(numbers: &mut Numbers) -> &'static str {
    let all = [
        "bigint PRIMARY KEY",
        "bigserial PRIMARY KEY",
        "bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
        "bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        "int PRIMARY KEY",
        "bigint NOT NULL UNIQUE",
    ];
    numbers.pick(&all).unwrap_or(&"bigint PRIMARY KEY")
}

impl Parts {
    fn add(&mut self, name: &str, definition: &str, value: &str) {
        self.columns.push(format!("{name} {definition}"));
        self.filled.push((name.to_owned(), value.to_owned()));
    }

    fn add_plain(&mut self, (name, definition, value): (&str, &str, &str), is_sparse: bool) {
        let value = value.replace("TABLE", &self.name);
        if is_sparse {
            let value = format!("CASE WHEN n % 4 > 0 THEN {value} END");
            self.add(name, definition, &value);
        } else {
            self.add(name, &format!("{definition} NOT NULL"), &value);
        }
    }

    /// A reference to a row of the same account, or to a row of everybody's.
    fn add_parent(&mut self, parent: &Ordinary, role: &str, is_required: bool) {
        let Ordinary {
            name, row_count, ..
        } = parent;
        let null = if is_required { "NOT NULL" } else { "" };
        let row = format!("(n * 5 % {row_count} + 1)");
        if parent.has_account_in_key {
            // The account is a part of the reference, and there is one in the table.
            if !self.filled.iter().any(|(name, _)| name == "account_id") {
                self.add("account_id", "bigint NOT NULL REFERENCES accounts", "a");
                self.hops = Some(0);
            }
            let column = format!("{role}_number");
            self.add(&column, &format!("int {null}"), &row);
            self.columns.push(format!(
                "FOREIGN KEY (account_id, {column}) REFERENCES {name} (account_id, number)"
            ));
            return;
        }
        let value = match parent.hops {
            Some(_) => format!("{row} * 100 + a"),
            None => format!("{row} * 100"),
        };
        let value = match is_required {
            true => value,
            false => format!("CASE WHEN n % 3 > 0 THEN {value} END"),
        };
        let definition = format!("bigint {null} REFERENCES {name} (id)");
        self.add(&format!("{role}_id"), &definition, &value);
        let has_account = self.filled.iter().any(|(name, _)| name == "account_id");
        if is_required
            && !has_account
            && let Some(hops) = parent.hops
        {
            self.hops = Some(hops + 1);
        }
    }

    fn finish(
        mut self,
        numbers: &mut Numbers,
        row_count: u64,
        has_account_in_key: bool,
    ) -> Ordinary {
        if has_account_in_key {
            self.columns.push("PRIMARY KEY (account_id, number)".into());
        }
        if numbers.happens(20) {
            let double = "double_count bigint GENERATED ALWAYS AS (double_of * 2) STORED";
            self.add("double_of", "int", "n");
            self.columns.push(double.into());
        }
        let name = self.name.clone();
        let mut definition = format!("CREATE TABLE {name} (\n    ");
        definition.push_str(&self.columns.join(",\n    "));
        definition.push_str(");\n");
        if numbers.happens(25) {
            self.add("deleted_at", "", "CASE WHEN n > 3 THEN now() END");
            let unique = match has_account_in_key {
                true => "(account_id, (number % 1000))",
                false => "(id) ",
            };
            definition.push_str(&format!(
                "ALTER TABLE {name} ADD deleted_at timestamptz;\n\
                 CREATE UNIQUE INDEX ON {name} {unique} WHERE deleted_at IS NULL;\n"
            ));
        }
        let is_parent = definition.contains("PRIMARY KEY");
        let (columns, values): (Vec<String>, Vec<String>) = self.filled.into_iter().unzip();
        let (columns, values) = (columns.join(", "), values.join(", "));
        let of_one = match self.hops {
            Some(_) => "",
            None => " AND a = 1",
        };
        let rows = format!(
            "INSERT INTO {name} ({columns}) OVERRIDING SYSTEM VALUE\n    \
             SELECT {values} FROM long_grid WHERE n <= {row_count}{of_one};\n"
        );
        Ordinary {
            owner: match has_account_in_key {
                true => "account_id",
                false => "id % 100",
            },
            name,
            definition,
            rows,
            row_count,
            hops: self.hops,
            has_account_in_key,
            is_parent,
        }
    }
}
