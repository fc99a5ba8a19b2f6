//! Tables of many blocks: what was inserted before, within and behind each stretch of them is read once.

use std::collections::BTreeMap;

use proptest::prelude::*;
use reinstate_core::{StoreSchema, TableName, TableSchema};

use crate::ground::Ground;
use crate::model::{Model, Step, Values, schema_of_one};

/// Ids up to here; half of them have rows in the snapshot.
const IDS: u32 = 160;
/// Three of them fill a block.
const TEXT_BYTES: usize = 90_000;

/// Two tables that are alike: what became of the rows of each is gathered beside the other.
fn schema() -> StoreSchema {
    let table = &schema_of_one().tables()[0].clone();
    let named = |name: &str| TableSchema {
        name: TableName::new(name),
        ..table.clone()
    };
    StoreSchema::try_new(vec![named("left"), named("right")]).unwrap()
}

fn row(id: u32, letter: char) -> Values {
    let text: String = std::iter::repeat_n(letter, TEXT_BYTES).collect();
    vec![Some(id.to_string()), Some("a".to_owned()), Some(text)]
}

/// Rows of the snapshot: all even ids but those at both ends.
fn base() -> BTreeMap<u32, Values> {
    let ids = (10..IDS - 10).filter(|id| id.is_multiple_of(2));
    ids.map(|id| (id, row(id, 'b'))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_table_of_many_blocks_is_read_in_any_order_as_it_is_in_order(
        draws in proptest::collection::vec((0_u32..2, 0..IDS, proptest::char::range('c', 'z')), 1..60),
        at_once in 1_usize..20,
    ) {
        let mut tables = [base(), base()];
        let model = Model {
            schema: schema(),
            tables: tables.iter().map(|rows| rows.values().cloned().collect()).collect(),
        };
        let steps: Vec<Step> = draws
            .into_iter()
            .map(|(table, id, letter)| {
                let rows = &mut tables[table as usize];
                if letter < 'i' && let Some(before) = rows.remove(&id) {
                    return Step::Delete(table, before);
                }
                let after = row(id, letter);
                match rows.insert(id, after.clone()) {
                    Some(before) => Step::Update(table, before, after),
                    None => Step::Insert(table, after),
                }
            })
            .collect();
        let transactions = steps.chunks(at_once).map(<[Step]>::to_vec).collect();
        let mut ground = Ground::new(&schema(), model, transactions);
        ground.reads_blocks = true;
        ground.follow(&[(usize::MAX, 1 << 20)]);
        ground.check(&["a"]);
    }
}
