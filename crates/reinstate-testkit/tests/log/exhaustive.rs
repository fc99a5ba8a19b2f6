//! All short histories of two tenants and two keys.

use reinstate_testkit::figures;

use crate::ground::Ground;
use crate::model::{Model, Step, schema_of_one, values};

pub const PROJECTS: u32 = 0;

/// Every way to go on from a store: each key of each of two tenants.
fn ways(model: &Model, number: usize) -> Vec<Step> {
    let mut ways = vec![];
    let text = number.to_string();
    for key in ["1", "2"] {
        let Some(row) = model.find(PROJECTS, key) else {
            for tenant in ["a", "b"] {
                ways.push(Step::Insert(PROJECTS, values(&[key, tenant, &text])));
            }
            continue;
        };
        let owner = row[1].as_deref().unwrap();
        let other = if owner == "a" { "b" } else { "a" };
        let update = |to: &[&str]| Step::Update(PROJECTS, row.clone(), values(to));
        ways.push(update(&[key, owner, &text]));
        ways.push(Step::Delete(PROJECTS, row.clone()));
        ways.push(update(&[key, other, &text]));
        let free = if key == "1" { "2" } else { "1" };
        if model.find(PROJECTS, free).is_none() {
            ways.push(update(&[free, owner, &text]));
        }
    }
    if !model.tables[PROJECTS as usize].is_empty() {
        ways.push(Step::Truncate(PROJECTS));
    }
    ways
}

/// Hands out all histories that go on from these steps, up to so many.
pub fn go_on(model: &Model, so_far: &mut Vec<Step>, length: usize, each: &mut impl FnMut(&[Step])) {
    if so_far.len() == length {
        each(so_far);
        return;
    }
    for step in ways(model, so_far.len()) {
        let mut next = model.clone();
        next.apply(&step);
        so_far.push(step);
        go_on(&next, so_far, length, each);
        so_far.pop();
    }
}

#[test]
fn all_histories_of_five_steps_over_two_tenants_and_two_keys_at_every_time() {
    let schema = schema_of_one();
    let start = Model::new(&schema);
    let empty = Ground::new(&schema, start.clone(), Vec::new());
    let mut histories = 0;
    let mut images = 0;
    go_on(&start, &mut Vec::new(), 5, &mut |steps| {
        let transactions = steps.iter().map(|step| vec![step.clone()]).collect();
        let ground = empty.and_then(transactions);
        ground.follow(&[(2, 1)]);
        images += ground.check(&["a", "b"]);
        histories += 1;
    });
    assert!(histories > 5_000, "{histories} histories, {images} images");
    figures::record(
        "histories-exhaustive",
        &[("histories", histories), ("images compared", images as u64)],
    );
}
