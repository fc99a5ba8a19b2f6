//! The kit on the reference store, and on stores that are wrong on purpose.

#[path = "testkit/campaign.rs"]
mod campaign;
#[path = "testkit/campaign_risks.rs"]
mod campaign_risks;
#[path = "testkit/faults.rs"]
mod faults;
#[path = "testkit/fences.rs"]
mod fences;
#[path = "testkit/meanwhile.rs"]
mod meanwhile;
#[path = "testkit/memory.rs"]
mod memory;
#[path = "testkit/mutants.rs"]
mod mutants;
#[path = "testkit/pacing.rs"]
mod pacing;
#[path = "testkit/proving.rs"]
mod proving;
#[path = "testkit/resuming.rs"]
mod resuming;
#[path = "testkit/synthetic.rs"]
mod synthetic;
