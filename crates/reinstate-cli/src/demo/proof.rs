//! The proof: every row of every owner in every store against what it has to be.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Instant;

use reinstate_core::{ContentDigest, OwnedRowBatch, Owner, SnapshotSource, TableIndex};
use reinstate_synthetic::Table;

use super::Stage;
use super::estate::Shop;
use super::story::Story;
use super::writers::Ledger;
use crate::render::count;

/// What rows contain, by owner and table. Nothing where there are no rows.
type Contents = BTreeMap<(Vec<u8>, TableIndex), ContentDigest>;

/// What a proof found.
#[derive(Clone, Debug, Default)]
pub struct Proof {
    /// Restored sites that hold the generator's rows in every store, and nothing else.
    pub victims_equal: usize,
    /// Others that hold the generator's rows and their application's own writes in every store.
    pub others_equal: usize,
    /// Store, owner and table of what is not as it should be.
    pub wrong: Vec<String>,
    /// Rows that were read.
    pub row_count: u64,
}

impl Stage<'_> {
    /// Reads all of every store, each at one position, and compares it with the known answers, the
    /// application's ledgers added. The site that is `gone` must have nothing.
    pub(super) fn prove(
        &self,
        story: &Story<'_>,
        title: &str,
        ledgers: &[Ledger],
        gone: Option<u32>,
    ) -> anyhow::Result<Proof> {
        let started = Instant::now();
        let mut proof = Proof::default();
        let mut is_right = vec![true; self.shops[0].synthetic.spec().tenant_count as usize];
        for (shop, ledger) in self.shops.iter().zip(ledgers) {
            let (found, expected) = thread::scope(|scope| {
                let expected = scope.spawn(|| shop.expect(ledger, gone));
                let found = self.read_all(shop);
                (found, expected.join().expect("BUG: the generator panicked"))
            });
            let found = found?;
            proof.row_count += found.values().map(ContentDigest::row_count).sum::<u64>();
            let places: BTreeSet<_> = found.keys().chain(expected.keys()).collect();
            for place in places {
                if found.get(place) == expected.get(place) {
                    continue;
                }
                let owner = Owner::from_bytes(&place.0)?;
                let table = &shop.synthetic.schema().table(place.1).name;
                let name = shop.name;
                proof
                    .wrong
                    .push(format!("store {name}: {owner} in {table}"));
                if let Owner::Tenant(tenant) = &owner
                    && let Some(index) = shop.synthetic.tenant_index(tenant)
                {
                    is_right[index as usize] = false;
                }
            }
        }
        for (index, is_right) in (0..).zip(is_right) {
            let equal = usize::from(is_right);
            match self.victims.contains(&index) {
                true => proof.victims_equal += equal,
                false => proof.others_equal += equal,
            }
        }
        self.tell(story, title, started, &proof, gone);
        Ok(proof)
    }

    fn tell(
        &self,
        story: &Story<'_>,
        title: &str,
        started: Instant,
        proof: &Proof,
        gone: Option<u32>,
    ) {
        let site_count = self.shops[0].synthetic.spec().tenant_count as usize;
        let victims = self.victims.len();
        let equal = proof.victims_equal;
        let victims_text = match gone {
            None => format!("{equal} of {victims} restored sites equal the known answer"),
            Some(gone) => format!(
                "{} is gone again, {} of {} others restored still equal theirs",
                self.site(gone),
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
                site_count - victims,
                count(proof.row_count)
            ),
        );
        for wrong in proof.wrong.iter().take(10) {
            story.say(format_args!("  ! WRONG: {wrong}"));
        }
    }

    /// What a store holds, all of it at one position.
    fn read_all(&self, shop: &Shop) -> anyhow::Result<Contents> {
        let view = shop.store.begin_capture()?;
        let mut contents = Contents::new();
        let mut batch = OwnedRowBatch::new();
        for (index, _) in view.schema().iter() {
            let mut rows = view.table_rows(index)?;
            while rows.next_batch(&mut batch)? {
                self.estate.interruption.cancellation().check()?;
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
}

impl Shop {
    /// What the store has to hold.
    fn expect(&self, ledger: &Ledger, gone: Option<u32>) -> Contents {
        let mut contents = Contents::new();
        for table in Table::ALL
            .into_iter()
            .filter(|table| !table.is_tenant_owned())
        {
            let content = self.synthetic.digest_of(0, table.index());
            put(&mut contents, table.index(), Some((&[], content)));
        }
        for index in 0..self.synthetic.spec().tenant_count {
            if gone == Some(index) {
                continue;
            }
            let tenant = self.synthetic.tenant(index);
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
}

fn put(contents: &mut Contents, table: TableIndex, run: Option<(&[u8], ContentDigest)>) {
    if let Some((owner, content)) = run {
        contents
            .entry((owner.to_vec(), table))
            .or_default()
            .merge(content);
    }
}
