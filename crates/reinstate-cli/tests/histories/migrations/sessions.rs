//! What sessions do: those that migrate make, fill, alter, rename and drop tables of their own, those that
//! write do so in whatever tables there are.

use crate::Dice;

/// Statements of one session in one round.
pub const STATEMENTS: u64 = 30;
/// Lets others in between, for some milliseconds.
const PAUSE: &str = "SELECT pg_sleep(random() * 0.012);\n";
/// Tenants are numbered from here on.
pub const TENANTS: std::ops::Range<u64> = 1..5;

/// A table of a session that migrates.
#[derive(Debug)]
struct Table {
    /// What it is called at first, and all that becomes of its name starts with.
    number: u64,
    name: String,
    kind: Kind,
    /// How often something was added to it.
    added: u64,
    has_spare: bool,
    /// One that is emptied is not altered, and the other way round: where both come between two looks, the log
    /// ends.
    is_emptied: bool,
    is_altered: bool,
    /// One to which partitions were added is not dropped: of a partition that came and went between two looks nobody
    /// could say whose it was, and the log ends.
    is_extended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    /// Rows of another one refer to its.
    Parent,
    /// In parts.
    Parted,
}

/// A session that migrates.
#[derive(Debug)]
pub struct Migrator {
    dice: Dice,
    tables: Vec<Table>,
    made: u64,
    session: u64,
}

/// The number of the table in all names that it ever had.
pub fn base(name: &str) -> &str {
    name.split_once('x').map_or(name, |(base, _)| base)
}

impl Migrator {
    pub fn new(seed: u64, session: u64) -> Self {
        Self {
            dice: Dice(seed * 1_000 + session),
            tables: Vec::new(),
            made: 0,
            session,
        }
    }

    /// What it does in one round, each statement in a transaction of its own.
    pub fn script(&mut self) -> String {
        let statements = (0..STATEMENTS).map(|_| self.statement() + ";\n" + PAUSE);
        statements.collect()
    }

    fn statement(&mut self) -> String {
        if self.tables.len() < 2 || self.dice.below(10) == 0 {
            return self.create();
        }
        let place = self.dice.below(self.tables.len() as u64);
        let place = usize::try_from(place).unwrap();
        let what = self.dice.below(12);
        let [tenant, id] = [4, 40].map(|end| 1 + self.dice.below(end));
        let table = &mut self.tables[place];
        let name = table.name.clone();
        match (what, table.kind) {
            (0 | 1, _) if !table.is_emptied => table.add(&mut self.dice),
            (2, _) if table.has_spare && !table.is_emptied => {
                (table.has_spare, table.is_altered) = (false, true);
                match (tenant % 2, table.kind) {
                    // With partitions that come meanwhile it could not be said which column is which.
                    (0, Kind::Plain | Kind::Parent) => {
                        format!("ALTER TABLE {name} DROP COLUMN spare")
                    }
                    _ => format!("ALTER TABLE {name} RENAME COLUMN spare TO kept"),
                }
            }
            (3, Kind::Plain) => {
                table.name = format!("m_{}x{id}", table.number);
                let rename = format!("ALTER TABLE {name} RENAME TO {}", table.name);
                if table.name == name {
                    "SELECT 1".to_owned()
                } else {
                    rename
                }
            }
            (4, Kind::Plain | Kind::Parted) if !table.is_extended => {
                self.tables.remove(place);
                format!("DROP TABLE {name}")
            }
            (5, _) => format!("CREATE INDEX ON {name} (account_id)"),
            (6, _) if !table.is_emptied => {
                table.is_altered = true;
                format!("ALTER TABLE {name} ALTER note SET DEFAULT 'by default'")
            }
            (7, Kind::Plain) if !table.is_altered => {
                table.is_emptied = true;
                format!("TRUNCATE {name}")
            }
            (8, Kind::Parted) => {
                table.added += 1;
                table.is_extended = true;
                let (number, from) = (table.number, 1_000 * table.added);
                format!(
                    "CREATE TABLE p_{number}_{from} PARTITION OF {name} FOR VALUES FROM ({from}) TO ({})",
                    from + 1_000
                )
            }
            (8 | 9, Kind::Parent) => {
                let child = format!("c_{}", table.number);
                format!(
                    "INSERT INTO {child} SELECT id + {id} * 100, account_id, id FROM {name}
                      ON CONFLICT DO NOTHING"
                )
            }
            _ => format!(
                "INSERT INTO {name} (id, account_id, note)
                 SELECT n, (n + {tenant}) % 4 + 1, 'filled' FROM generate_series({id}, {id} + 30) n
                  ON CONFLICT (id) DO UPDATE SET note = 'filled again'"
            ),
        }
    }

    fn create(&mut self) -> String {
        self.made += 1;
        let number = self.session * 1_000 + self.made;
        let name = format!("m_{number}");
        let kind = self
            .dice
            .pick(&[Kind::Plain, Kind::Plain, Kind::Parent, Kind::Parted]);
        self.tables.push(Table {
            number,
            name: name.clone(),
            kind,
            added: 0,
            has_spare: true,
            is_emptied: false,
            is_altered: false,
            is_extended: false,
        });
        let columns =
            "(id int PRIMARY KEY, account_id int, note text, spare date DEFAULT '2020-02-02')";
        let rows = self.dice.pick(&[0, 10, 300]);
        match kind {
            Kind::Plain => format!(
                "CREATE TABLE {name} {columns};\nINSERT INTO {name} SELECT n + 100, n % 4 + 1, repeat('long', 50)
                   FROM generate_series(1, {rows}) n"
            ),
            Kind::Parent => format!(
                "CREATE TABLE {name} {columns};\nINSERT INTO {name} SELECT n, n % 4 + 1 FROM generate_series(1, 9) n;\n\
                 CREATE TABLE c_{number} (id int PRIMARY KEY, account_id int, parent_id int NOT NULL REFERENCES {name})"
            ),
            Kind::Parted => format!(
                "CREATE TABLE {name} {columns} PARTITION BY RANGE (id);\n\
                 CREATE TABLE p_{number}_0 PARTITION OF {name} FOR VALUES FROM (0) TO (1000)"
            ),
        }
    }
}

impl Table {
    fn add(&mut self, dice: &mut Dice) -> String {
        self.added += 1;
        self.is_altered = true;
        let (name, added) = (&self.name, self.added);
        let kind = dice.pick(&[
            "text",
            "text DEFAULT 'd'",
            "int DEFAULT 7",
            "int",
            "jsonb DEFAULT '{}'",
        ]);
        format!("ALTER TABLE {name} ADD COLUMN more_{added} {kind}")
    }
}

/// What a session does that writes to tables that come and go, while they do: where one is missing, or has
/// another name, nothing.
pub fn writes(dice: &mut Dice, round: u64, session: u64) -> String {
    let mut script = String::new();
    for _ in 0..STATEMENTS {
        let [tenant, id, other] = [4, 60, 4].map(|end| 1 + dice.below(end));
        let statement = dice
            .pick(&[
                format!(
                    "INSERT INTO %I (id, account_id, note) VALUES ({id}, {tenant}, ''w{round}'')"
                )
                .as_str(),
                format!("UPDATE %I SET note = ''u{round}_{session}'' WHERE id %% 7 = {tenant}")
                    .as_str(),
                format!("UPDATE %I SET account_id = {other} WHERE id = {id}").as_str(),
                format!("DELETE FROM %I WHERE id = {id} OR id = {id} + 1000").as_str(),
                format!("UPDATE %I SET id = id + 1000 WHERE id = {id}").as_str(),
            ])
            .to_owned();
        // Any table, the newest rather than others.
        let newest = dice.below(6);
        script += &format!(
            "DO $$ DECLARE name text; BEGIN
                 SELECT relname INTO name FROM pg_class WHERE relname ~ '^(m|old)_' AND relkind IN ('r', 'p')
                  ORDER BY oid DESC OFFSET {newest} LIMIT 1;
                 EXECUTE format('{statement}', name);
             EXCEPTION WHEN OTHERS THEN NULL; END $$;
             UPDATE old_{session} SET note = 'u{round}' WHERE id % 5 = {tenant};\n{PAUSE}"
        );
    }
    script
}
