//! The tables that the measurements on PostgreSQL use, and what is in them.

use anyhow::Result;
use bytes::Bytes;
use reinstate_postgres::{TableRule, TenancyMap};
use reinstate_synthetic::{LargeTenant, SyntheticSpec, SyntheticStore, Table};

use super::RawClient;

/// About how much text goes into one message of a COPY.
pub(super) const MESSAGE_BYTES: usize = 48 * 1024;

/// Which of the tables' nine foreign keys there are. Checking them is most of what a COPY takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignKeys {
    /// All of them.
    All,
    /// Only the one that leads comments to their tenant.
    ToTenant,
}

pub(super) fn spec() -> SyntheticSpec {
    SyntheticSpec {
        seed: 20_221_123,
        tenant_count: 200,
        row_count: 400_000,
        skew: 1.0,
        large_tenant: Some(LargeTenant {
            index: 0,
            row_count: 100_000,
        }),
    }
}

pub(super) fn tenancy(synthetic: &SyntheticStore) -> TenancyMap {
    let mut map = TenancyMap::new(synthetic.tenant_kind());
    map.column = Some("account_id".to_owned());
    map.shared = vec!["currencies".to_owned(), "plans".to_owned()];
    let reference = "issue_id -> issues.id".to_owned();
    map.tables
        .insert("comments".to_owned(), TableRule::via(reference));
    map
}

pub(super) fn fill(
    synthetic: &SyntheticStore,
    client: &RawClient,
    keys: ForeignKeys,
) -> Result<()> {
    client.run(&SyntheticStore::postgres_tables())?;
    for table in Table::ALL {
        let mut text = Vec::new();
        synthetic.copy_text(table.index(), &mut text)?;
        let text = Bytes::from(text);
        let messages: Vec<Bytes> = (0..text.len())
            .step_by(MESSAGE_BYTES)
            .map(|start| text.slice(start..text.len().min(start + MESSAGE_BYTES)))
            .collect();
        client.copy_in(&format!("COPY {} FROM STDIN", table.name()), &messages)?;
    }
    let ddl = SyntheticStore::postgres_keys();
    let is_wanted = |line: &&str| {
        let is_way = line.contains("TABLE comments ") && line.contains("(issue_id)");
        keys == ForeignKeys::All || is_way || !line.contains("ADD FOREIGN KEY")
    };
    let wanted: Vec<&str> = ddl.lines().filter(is_wanted).collect();
    client.run(&wanted.join("\n"))?;
    client.run(&synthetic.postgres_counters())?;
    client.run("VACUUM ANALYZE")?;
    client.run("CHECKPOINT")
}
