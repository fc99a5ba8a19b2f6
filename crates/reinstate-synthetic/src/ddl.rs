//! The synthetic tables as PostgreSQL definitions.

use std::fmt::Write;

use crate::SyntheticStore;
use crate::table::Table;

impl SyntheticStore {
    /// Everything at once: [`postgres_tables`](Self::postgres_tables), then
    /// [`postgres_keys`](Self::postgres_keys).
    #[must_use]
    pub fn postgres_ddl() -> String {
        Self::postgres_tables() + &Self::postgres_keys()
    }

    /// Statements that create the tables and their counters, without keys: load rows after these.
    #[must_use]
    pub fn postgres_tables() -> String {
        let mut ddl = String::new();
        for table in Table::ALL {
            let columns: Vec<String> = table.columns().iter().map(|text| column(text)).collect();
            let _ = writeln!(
                ddl,
                "CREATE TABLE {} ({});",
                table.name(),
                columns.join(", ")
            );
            if let Some(sequence) = table.sequence() {
                let name = table.name();
                let _ = writeln!(ddl, "CREATE SEQUENCE {sequence} OWNED BY {name}.id;");
                let _ = writeln!(
                    ddl,
                    "ALTER TABLE {name} ALTER id SET DEFAULT nextval('{sequence}');"
                );
            }
        }
        ddl
    }

    /// Statements that add primary keys, foreign keys and the indexes an application would have.
    #[must_use]
    pub fn postgres_keys() -> String {
        let mut ddl = String::new();
        for table in Table::ALL {
            if let Some(key) = table.key_column() {
                let _ = writeln!(ddl, "ALTER TABLE {} ADD PRIMARY KEY ({key});", table.name());
            }
        }
        for table in Table::ALL {
            let name = table.name();
            for (column, parent) in table.parents() {
                let parent = parent.name();
                let _ = writeln!(
                    ddl,
                    "ALTER TABLE {name} ADD FOREIGN KEY ({column}) REFERENCES {parent};"
                );
            }
            if table.columns().contains(&"account_id bigint") {
                let _ = writeln!(ddl, "CREATE INDEX ON {name} (account_id);");
            }
        }
        ddl.push_str("CREATE INDEX ON comments (issue_id);\n");
        ddl
    }

    /// Statements that set every counter to the last id in use: run after loading.
    #[must_use]
    pub fn postgres_counters(&self) -> String {
        use reinstate_core::SnapshotSource;

        let mut ddl = String::new();
        if let Ok(view) = self.begin_capture() {
            for sequence in view.sequences().iter().filter(|value| value.last_value > 0) {
                let _ = writeln!(
                    ddl,
                    "SELECT setval('{}', {});",
                    sequence.name, sequence.last_value
                );
            }
        }
        ddl
    }
}

fn column(text: &str) -> String {
    match text.strip_suffix('?') {
        Some(nullable) => nullable.to_owned(),
        None => format!("{text} NOT NULL"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_name_every_table_key_and_counter() {
        let ddl = SyntheticStore::postgres_ddl();
        for table in Table::ALL {
            assert!(ddl.contains(&format!("CREATE TABLE {} (", table.name())));
        }
        assert_eq!(ddl.matches("ADD PRIMARY KEY").count(), 6);
        assert_eq!(ddl.matches("ADD FOREIGN KEY").count(), 9);
        assert_eq!(ddl.matches("CREATE SEQUENCE").count(), 4);
        assert!(ddl.contains("due_on date,"), "{ddl}");
    }
}
