//! Campaigns: their plans and their chains.

use reinstate_core::{
    CampaignId, ChangeCounts, Digest, JobId, ObjectId, Position, PositionNotation, RepositoryId,
    SnapshotId, StoreId, StoreIdentity, TenantId, TenantKind, Timestamp,
};
use reinstate_format::{
    BatchPlan, CampaignAction, CampaignBatch, CampaignChain, CampaignCheck, CampaignDescription,
    CampaignEntry, CampaignGate, CampaignLink, CampaignMode, CampaignPart, CampaignRecord,
    CampaignStep, CampaignStore, CampaignTenant, EntryKind, FormatError, decode_campaign,
    decode_campaign_record, encode_campaign, encode_campaign_record,
};

use crate::forge;
use crate::golden::file;
use crate::records::check_damage;

const REPOSITORY: RepositoryId = RepositoryId::from_bytes([0x11; 16]);
const CAMPAIGN: CampaignId = CampaignId::from_bytes([0x77; 16]);

fn time(second: i64) -> Timestamp {
    Timestamp::from_micros(1_775_374_680_000_000 + second * 1_000_000)
}

fn id(text: &str) -> TenantId {
    TenantId::try_new(text).unwrap()
}

fn plan(number: u8) -> BatchPlan {
    BatchPlan {
        job: JobId::from_bytes([number; 16]),
        object: ObjectId::from_bytes([number + 1; 16]),
        digest: Digest::from_bytes([number + 2; 32]),
    }
}

fn store(name: &str, phase: u8, notation: PositionNotation) -> CampaignStore {
    CampaignStore {
        name: name.to_owned(),
        store: StoreIdentity {
            id: StoreId::from_bytes([phase; 16]),
            name: format!("{name}-live"),
        },
        repository: RepositoryId::from_bytes([0x20 + phase; 16]),
        tenant_kind: TenantKind::parse("account").unwrap(),
        phase,
        concurrency: 4,
        snapshot: SnapshotId::from_bytes([0x30 + phase; 16]),
        point: Position {
            commit: 0x16b3_74d8,
            ordinal: 0,
        },
        point_time: time(0),
        notation,
    }
}

fn part(tenant: &str) -> CampaignPart {
    CampaignPart {
        tenant: id(tenant),
        instead_of: (tenant == "c-7").then(|| id("7")),
        image: Digest::from_bytes([0x44; 32]),
        counts: ChangeCounts {
            created: 12,
            put_back: 3,
            deleted: 1,
        },
        same: 18_000,
        stored_bytes: 123_456,
    }
}

fn campaign() -> CampaignDescription {
    let sql = CampaignStep::Sql {
        store: 1,
        text: "SELECT count(*) FROM orders WHERE account_id = $1".to_owned(),
    };
    let command = CampaignStep::Command(vec!["./check".to_owned(), "{site}".to_owned()]);
    CampaignDescription {
        campaign: CAMPAIGN,
        repository: REPOSITORY,
        estate: "shop".to_owned(),
        site_kind: TenantKind::parse("site").unwrap(),
        mode: CampaignMode::Chosen,
        asked: "2026-04-05T07:38Z".to_owned(),
        planned_at: time(60),
        planned_by: "ada".to_owned(),
        approvals_needed: 2,
        batch_size: 60,
        stores: vec![
            store("sites", 1, PositionNotation::Commit),
            store("orders", 2, PositionNotation::Lsn),
        ],
        gates: vec![
            CampaignGate {
                name: "orders".to_owned(),
                phase: 2,
                check: CampaignCheck::Step {
                    step: sql,
                    expected: "7".to_owned(),
                    timeout_seconds: 30,
                },
            },
            CampaignGate {
                name: "customer".to_owned(),
                phase: 2,
                check: CampaignCheck::Acceptance,
            },
        ],
        links: vec![CampaignLink {
            store: 1,
            table: "orders".to_owned(),
            column: "site_id".to_owned(),
            parent_store: 0,
            parent_table: "sites".to_owned(),
            parent_column: "id".to_owned(),
        }],
        close: None,
        open: Some(CampaignAction {
            step: command,
            timeout_seconds: 10,
        }),
        batches: vec![CampaignBatch {
            plans: vec![Some(plan(1)), Some(plan(4))],
        }],
        tenants: vec![
            CampaignTenant {
                site: id("7"),
                batch: 0,
                parked: None,
                parts: vec![Some(part("7")), Some(part("c-7"))],
            },
            CampaignTenant {
                site: id("8"),
                batch: 0,
                parked: Some("store orders: no row of it".to_owned()),
                parts: vec![Some(part("8")), None],
            },
        ],
    }
}

fn chain() -> CampaignChain {
    CampaignChain::Campaign {
        campaign: CAMPAIGN,
        plan: encode_campaign(&campaign()).1,
    }
}

fn record() -> CampaignRecord {
    let mut approved = CampaignEntry::new(time(61), "grace", EntryKind::Approved);
    approved.digest = Some(encode_campaign(&campaign()).1);
    let mut merged = CampaignEntry::new(time(62), "ada", EntryKind::Merged);
    merged.tenant = Some(0);
    merged.store = Some(1);
    merged.rows = 16;
    merged.position = Some(Position {
        commit: 0x16b3_75f0,
        ordinal: 0,
    });
    let mut undo = CampaignEntry::new(time(63), "ada", EntryKind::UndoPlanned);
    undo.batch = Some(0);
    undo.store = Some(1);
    undo.plan = Some(plan(9));
    let mut gate = CampaignEntry::new(time(64), "ada", EntryKind::GateFailed);
    gate.tenant = Some(1);
    gate.gate = "orders".to_owned();
    gate.detail = "it answered 6, not 7".to_owned();
    CampaignRecord {
        number: 0,
        previous: chain().root(REPOSITORY),
        entries: vec![approved, merged, undo, gate],
    }
}

fn read(bytes: &[u8]) -> Result<(CampaignRecord, Digest), FormatError> {
    let place = (0, chain().root(REPOSITORY));
    decode_campaign_record(bytes, REPOSITORY, &chain(), place)
}

#[test]
fn the_golden_campaign_and_its_record_read_and_are_written_the_same() {
    let plan = file("campaign", || encode_campaign(&campaign()).0);
    let (found, digest) = decode_campaign(&plan, REPOSITORY, CAMPAIGN).unwrap();
    assert_eq!(found, campaign());
    assert_eq!(encode_campaign(&found), (plan, digest));
    let bytes = file("campaign_record", || {
        encode_campaign_record(REPOSITORY, &chain(), &record()).0
    });
    let (found, digest) = read(&bytes).unwrap();
    assert_eq!(found, record());
    let again = encode_campaign_record(REPOSITORY, &chain(), &found);
    assert_eq!(again, (bytes, digest));
}

#[test]
fn all_damage_to_a_campaign_and_its_records_is_noticed() {
    let (plan, _) = encode_campaign(&campaign());
    check_damage(&plan, |damaged| {
        decode_campaign(damaged, REPOSITORY, CAMPAIGN).is_err()
    });
    let (bytes, _) = encode_campaign_record(REPOSITORY, &chain(), &record());
    check_damage(&bytes, |damaged| read(damaged).is_err());
}

#[test]
fn a_record_opens_in_its_own_place_only() {
    let (bytes, digest) = encode_campaign_record(REPOSITORY, &chain(), &record());
    let root = chain().root(REPOSITORY);
    let open = |repository, chain: &CampaignChain, place| {
        decode_campaign_record(&bytes, repository, chain, place).is_ok()
    };
    assert!(open(REPOSITORY, &chain(), (0, root)));
    assert!(!open(REPOSITORY, &chain(), (1, root)));
    assert!(!open(REPOSITORY, &chain(), (0, digest)));
    assert!(!open(REPOSITORY, &CampaignChain::Audit, (0, root)));
    let elsewhere = RepositoryId::from_bytes([0x12; 16]);
    assert!(!open(elsewhere, &chain(), (0, root)));
}

#[test]
fn a_campaign_that_names_what_it_does_not_have_is_refused() {
    let check = |change: fn(&mut CampaignDescription)| {
        let mut changed = campaign();
        change(&mut changed);
        let (bytes, _) = encode_campaign(&changed);
        let error = decode_campaign(&bytes, REPOSITORY, CAMPAIGN).unwrap_err();
        assert!(matches!(error, FormatError::Malformed { .. }), "{error}");
    };
    check(|campaign| campaign.tenants[0].batch = 1);
    check(|campaign| campaign.tenants[0].parts.truncate(1));
    check(|campaign| campaign.batches[0].plans[1] = None);
    check(|campaign| campaign.batches[0].plans.truncate(1));
    check(|campaign| campaign.links[0].parent_store = 2);
    check(|campaign| campaign.stores.truncate(1));
    check(|campaign| {
        campaign.close = Some(CampaignAction {
            step: CampaignStep::Sql {
                store: 2,
                text: String::new(),
            },
            timeout_seconds: 1,
        });
    });
}

#[test]
fn any_bytes_as_a_campaign_or_its_record() {
    let (plan, _) = encode_campaign(&campaign());
    let (record, _) = encode_campaign_record(REPOSITORY, &chain(), &record());
    bolero::check!()
        .with_iterations(500)
        .for_each(|input: &[u8]| {
            for valid in [&plan, &record] {
                let edited = forge::edit(forge::payload(valid), input);
                for frame in [
                    input.to_vec(),
                    forge::frame(valid, input),
                    forge::frame(valid, &edited),
                ] {
                    if let Ok((found, digest)) = decode_campaign(&frame, REPOSITORY, CAMPAIGN) {
                        assert_eq!(encode_campaign(&found), (frame.clone(), digest));
                    }
                    if let Ok((found, digest)) = read(&frame) {
                        let again = encode_campaign_record(REPOSITORY, &chain(), &found);
                        assert_eq!(again, (frame, digest));
                    }
                }
            }
        });
}
