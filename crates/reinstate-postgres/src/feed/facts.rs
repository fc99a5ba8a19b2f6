//! What must stay as it is while a store is followed, and a short digest of it.
//!
//! The log tells of rows, not of tables. A table that came, one whose rows were written anew by an
//! `ALTER`, a partition that was attached with its rows or dropped with them: nothing of it is in
//! the stream. So what the catalogue says about the followed tables is compared, before anything is
//! handed over, with what it said when the snapshot was taken. The digest is part of the slot's
//! name: it outlives this process.

use std::collections::BTreeMap;

use reinstate_core::{ErrorKind, StoreError};

use super::publication::PUBLICATION;
use crate::catalog::{IS_TABLE, OWN_NAMESPACE, PARTITIONS, display_name, get};
use crate::session::Session;
use crate::sql::literal;
use crate::tenancy::{TableRule, TenancyMap};

/// What the catalogue says, as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// By the names of the followed tables, their ids and a text that changes with them.
    pub tables: BTreeMap<String, (u32, String)>,
    /// The numbers of the files that hold rows, by the ids of their relations. No part of the digest:
    /// a file changes where nothing else does.
    pub storage: BTreeMap<u32, u32>,
    /// What does not belong to one table.
    general: String,
    /// Which transactions were seen.
    seen: Seen,
}

/// The transactions that a snapshot sees.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    next: u64,
    running: Vec<u64>,
}

/// Reads the facts in one statement, and so as of one moment.
///
/// A column's own transaction number is part of them: an `ALTER` that leaves the type as it is may
/// still have written every row anew. Enumerations too: a renamed label changes rows without a
/// word. And what made a partition one: what is written to it while it is detached is in no stream.
pub(super) fn read_facts(session: &Session, map: &TenancyMap) -> Result<Facts, StoreError> {
    let (own, publication) = (literal(OWN_NAMESPACE), literal(PUBLICATION));
    let sql = format!(
        "SELECT c.oid, n.nspname::text, c.relname::text, md5(concat_ws('|',
            (SELECT string_agg(concat_ws(' ', r.oid, r.relkind, r.relpersistence, r.relreplident,
                    CASE WHEN r.relispartition THEN
                        (SELECT i.xmin::text FROM pg_inherits i WHERE i.inhrelid = r.oid) END,
                    (SELECT string_agg(concat_ws(',', a.attnum, a.xmin, a.attname, a.atttypid,
                                a.atttypmod, a.attnotnull, a.attgenerated), ';' ORDER BY a.attnum)
                       FROM pg_attribute a WHERE a.attrelid = r.oid AND a.attnum > 0)),
                    '/' ORDER BY r.oid)
               FROM ({PARTITIONS}) x (oid)
               JOIN pg_class r ON r.oid = x.oid),
            (SELECT string_agg(concat_ws(',', x.relname, i.indkey, i.indnkeyatts, i.indisprimary,
                    i.indimmediate, i.indisvalid, i.indpred IS NULL, i.indexprs IS NULL), ';'
                    ORDER BY x.relname)
               FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
              WHERE i.indrelid = c.oid AND i.indisunique),
            (SELECT string_agg(concat_ws(',', k.conname, k.conkey, k.confrelid, k.confkey,
                    k.convalidated), ';' ORDER BY k.conname)
               FROM pg_constraint k
              WHERE k.conrelid = c.oid AND k.contype = 'f' AND k.conparentid = 0),
            (SELECT string_agg(concat_ws(',', l.oid, l.xmin), ';')
               FROM pg_publication_rel l JOIN pg_publication p ON p.oid = l.prpubid
              WHERE l.prrelid = c.oid AND p.pubname = {publication}))),
            (SELECT string_agg(concat_ws(',', r.oid, r.relfilenode), ';')
               FROM ({PARTITIONS}) x (oid)
               JOIN pg_class r ON r.oid = x.oid)
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE {IS_TABLE} AND n.nspname <> {own}
         UNION ALL
         SELECT 0, pg_current_snapshot()::text, '', concat_ws('|',
            (SELECT md5(string_agg(concat_ws(',', e.oid, e.enumlabel), ';' ORDER BY e.oid))
               FROM pg_enum e),
            (SELECT concat_ws(',', p.oid, p.xmin) FROM pg_publication p
              WHERE p.pubname = {publication})), ''"
    );
    let mut facts = None;
    let (mut tables, mut storage) = (BTreeMap::new(), BTreeMap::new());
    for row in session.rows("compare the tables", &sql, &[])? {
        let (oid, namespace, relation): (u32, String, String) =
            (get(&row, 0)?, get(&row, 1)?, get(&row, 2)?);
        if oid == 0 {
            facts = Some((parse_seen(&namespace)?, get::<String>(&row, 3)?));
            continue;
        }
        let name = display_name(&namespace, &relation);
        if map.rule(&name)? != Some(TableRule::Excluded) {
            tables.insert(name, (oid, get(&row, 3)?));
            let files: String = get(&row, 4)?;
            storage.extend(files.split(';').filter_map(|file| {
                let (relation, number) = file.split_once(',')?;
                Some((relation.parse::<u32>().ok()?, number.parse::<u32>().ok()?))
            }));
        }
    }
    let Some((seen, general)) = facts else {
        return Err(unreadable());
    };
    Ok(Facts {
        tables,
        storage,
        general,
        seen,
    })
}

/// Who is changing a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Altering {
    /// Somebody is: what will have been committed before now, and cannot be seen yet, is seen by this.
    pub is_somebody: bool,
    /// The commit is in the log already, and waits for a standby before others see it.
    pub is_committing: bool,
}

/// Looks for changes of tables that are under way.
pub(super) fn altering(session: &Session) -> Result<Altering, StoreError> {
    let sql = "SELECT count(*) > 0, coalesce(bool_or(a.wait_event = 'SyncRep'), false)
         FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
        WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.granted
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND l.pid IS DISTINCT FROM pg_backend_pid()";
    let row = session.row("look for changes of tables", sql, &[])?;
    Ok(Altering {
        is_somebody: get(&row, 0)?,
        is_committing: get(&row, 1)?,
    })
}

impl Facts {
    /// Sixteen hexadecimal digits that change with the facts.
    pub(super) fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut add = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        add(&self.general);
        for (name, (oid, facts)) in &self.tables {
            add(name);
            add(&oid.to_string());
            add(facts);
        }
        hasher.finalize().to_hex()[..16].to_owned()
    }

    /// The tables that came, went or changed since.
    pub(super) fn changed_since(&self, before: &Self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (name, facts) in &self.tables {
            match before.tables.get(name) {
                None => names.push(format!("{name} (new)")),
                Some(before) if before != facts => names.push(name.clone()),
                Some(_) => {}
            }
        }
        let gone = |name: &&String| !self.tables.contains_key(*name);
        let gone = before.tables.keys().filter(gone);
        names.extend(gone.map(|name| format!("{name} (gone)")));
        names
    }

    /// Whether the facts are of a moment after these transactions, by the low 32 bits of their
    /// numbers.
    pub(super) fn see(&self, transactions: &[u32]) -> bool {
        let low = |number: u64| u32::try_from(number & 0xffff_ffff).expect("BUG: 32 bits");
        let is_before = |number: u32| {
            number.wrapping_sub(low(self.seen.next)) >= 1 << 31
                && !self.seen.running.iter().any(|&other| low(other) == number)
        };
        transactions.iter().all(|&number| is_before(number))
    }
}

/// Reads `xmin:xmax:xip,...`.
fn parse_seen(text: &str) -> Result<Seen, StoreError> {
    let parse = || -> Option<Seen> {
        let mut parts = text.split(':').skip(1);
        let next = parts.next()?.parse().ok()?;
        let running = parts.next()?.split(',').filter(|part| !part.is_empty());
        let running: Result<Vec<u64>, _> = running.map(str::parse).collect();
        Some(Seen {
            next,
            running: running.ok()?,
        })
    };
    parse().ok_or_else(unreadable)
}

fn unreadable() -> StoreError {
    let message = "compare the tables: the server's answer makes no sense";
    StoreError::new(ErrorKind::Other, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(seen: &str) -> Facts {
        Facts {
            tables: BTreeMap::new(),
            storage: BTreeMap::new(),
            general: String::new(),
            seen: parse_seen(seen).unwrap(),
        }
    }

    #[test]
    fn a_transaction_is_seen_once_it_is_neither_running_nor_to_come() {
        let now = facts("10:20:12,15");
        assert!(now.see(&[9, 11, 19]));
        for unseen in [12, 15, 20, 21] {
            assert!(!now.see(&[9, unseen]), "{unseen}");
        }
        let late = facts("4294967290:4294967300:4294967295");
        assert!(late.see(&[u32::MAX - 1, 0, 3]), "numbers start anew");
        assert!(!late.see(&[u32::MAX]));
        assert!(!late.see(&[4]));
        assert!(facts("5:5:").see(&[4]));
        assert!(parse_seen("5").is_err());
    }

    #[test]
    fn what_changed_is_named_and_changes_the_digest() {
        let mut before = facts("1:1:");
        let table = |facts: &str| (1, facts.to_owned());
        before.tables.insert("a".to_owned(), table("x"));
        before.tables.insert("b".to_owned(), table("x"));
        let mut after = before.clone();
        assert_eq!(after.digest(), before.digest());
        after.tables.insert("a".to_owned(), table("y"));
        after.tables.remove("b");
        after.tables.insert("c".to_owned(), table("x"));
        assert_eq!(after.changed_since(&before), ["a", "c (new)", "b (gone)"]);
        assert_ne!(after.digest(), before.digest());
    }
}
