//! The proof: every row of every owner against what it has to be.

use std::collections::BTreeMap;

use reinstate_core::{ContentDigest, OwnedRowBatch, Owner, SnapshotSource, TableIndex, TenantId};
use reinstate_synthetic::Table;

use super::Stage;
use super::story::Story;
use super::writers::Ledger;

/// What rows contain, by owner and table. Nothing where there are no rows.
type Contents = BTreeMap<(Vec<u8>, TableIndex), ContentDigest>;

/// What a proof found.
#[derive(Clone, Debug, Default)]
pub struct Proof {
    /// Restored tenants that hold the generator's rows, and nothing else.
    pub victims_equal: usize,
    /// Others that hold the generator's rows and their application's own writes.
    pub others_equal: usize,
    /// Owner and table of what is not as it should be.
    pub wrong: Vec<String>,
    /// Rows that were read.
    pub row_count: u64,
}

impl Stage<'_> {
    /// Reads the whole store at one position and compares it with the known answers, the
    /// application's ledger added. Tenants that are `gone` must have nothing.
    pub(super) fn prove(
        &self,
        story: &Story<'_>,
        title: &str,
        ledger: &Ledger,
        gone: &[TenantId],
    ) -> anyhow::Result<Proof> {
        let started = std::time::Instant::now();
        let found = self.read_all()?;
        let expected = self.expect(ledger, gone);
        let mut proof = Proof {
            row_count: found.values().map(ContentDigest::row_count).sum(),
            ..Proof::default()
        };
        let mut wrong_owners: Vec<&[u8]> = Vec::new();
        for place in found.keys().chain(expected.keys()) {
            if found.get(place) != expected.get(place) && wrong_owners.last() != Some(&&*place.0) {
                wrong_owners.push(&place.0);
                let table = self.synthetic.schema().table(place.1).name.clone();
                let owner = Owner::from_bytes(&place.0)?;
                proof.wrong.push(format!("{owner} in {table}"));
            }
        }
        let is_right = |tenant: &TenantId| !wrong_owners.contains(&tenant.as_bytes());
        for index in 0..self.synthetic.spec().tenant_count {
            let equal = usize::from(is_right(&self.synthetic.tenant(index)));
            if self.victims.contains(&index) {
                proof.victims_equal += equal;
            } else {
                proof.others_equal += equal;
            }
        }
        self.tell(story, title, started, &proof, gone);
        Ok(proof)
    }

    fn tell(
        &self,
        story: &Story<'_>,
        title: &str,
        started: std::time::Instant,
        proof: &Proof,
        gone: &[TenantId],
    ) {
        let tenant_count = self.synthetic.spec().tenant_count as usize;
        let victims = self.victims.len();
        let equal = proof.victims_equal;
        let victims_text = match gone {
            [] => format!("{equal} of {victims} restored tenants equal the known answer"),
            [gone, ..] => format!(
                "{} is gone again, {} of {} others restored still equal theirs",
                self.name(gone),
                equal.saturating_sub(1),
                victims - 1
            ),
        };
        story.step(
            title,
            started.elapsed(),
            format_args!(
                "{victims_text}; {} of {} that were never touched hold exactly their own \
                 writes; {} rows read",
                proof.others_equal,
                tenant_count - victims,
                crate::render::count(proof.row_count)
            ),
        );
        for wrong in proof.wrong.iter().take(10) {
            story.say(format_args!("  ! WRONG: {wrong}"));
        }
    }

    /// What the store holds, all of it at one position.
    fn read_all(&self) -> anyhow::Result<Contents> {
        let view = self.store.begin_capture()?;
        let mut contents = Contents::new();
        let mut batch = OwnedRowBatch::new();
        for (index, _) in view.schema().iter() {
            let mut rows = view.table_rows(index)?;
            while rows.next_batch(&mut batch)? {
                self.interruption.cancellation().check()?;
                let mut run: Option<(&[u8], ContentDigest)> = None;
                for (owner, row) in batch.iter() {
                    match &mut run {
                        Some((of, content)) if *of == owner => content.add(row),
                        _ => {
                            put(&mut contents, index, run.take());
                            let mut content = ContentDigest::EMPTY;
                            content.add(row);
                            run = Some((owner, content));
                        }
                    }
                }
                put(&mut contents, index, run);
            }
        }
        Ok(contents)
    }

    /// What the store has to hold.
    fn expect(&self, ledger: &Ledger, gone: &[TenantId]) -> Contents {
        let mut contents = Contents::new();
        for table in Table::ALL
            .into_iter()
            .filter(|table| !table.is_tenant_owned())
        {
            let content = self.synthetic.digest_of(0, table.index());
            put(&mut contents, table.index(), Some((&[], content)));
        }
        for index in 0..self.synthetic.spec().tenant_count {
            let tenant = self.synthetic.tenant(index);
            if gone.contains(&tenant) {
                continue;
            }
            for table in Table::OWNED.map(Table::index) {
                let mut content = self.synthetic.digest_of(index, table);
                if let Some(written) = ledger.written.get(&(index, table)) {
                    content = written.after(content);
                }
                if content != ContentDigest::EMPTY {
                    put(&mut contents, table, Some((tenant.as_bytes(), content)));
                }
            }
        }
        contents
    }

    pub(super) fn name(&self, tenant: &TenantId) -> String {
        format!("{}:{tenant}", self.synthetic.tenant_kind())
    }
}

fn put(contents: &mut Contents, table: TableIndex, run: Option<(&[u8], ContentDigest)>) {
    if let Some((owner, content)) = run {
        contents
            .entry((owner.to_vec(), table))
            .or_default()
            .merge(content);
    }
}
