//! reinstate inside a restore service: the application's threads write on while one customer is
//! brought back, with progress, a way to stop, and a verdict to act on.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use reinstate::{CaptureOptions, Context, DriftRules, Resources, RestoreRequest, Verdict};
use reinstate_core::{
    Cancellation, ColumnIndex, ColumnSchema, Event, JobId, KeyForm, LiveStore, Observer, Owner,
    Policy, RepositoryId, SnapshotId, StoreId, StoreIdentity, StoreSchema, TableName, TableSchema,
    Tenancy, Tenant, TenantKind, Timestamp,
};
use reinstate_embedded::{EmbeddedOptions, EmbeddedStore};
use reinstate_repository::LocalRepository;

/// A service reports progress where its users look; this one prints.
struct Progress;

impl Observer for Progress {
    fn observe(&self, event: Event<'_>) {
        if let Event::Finished {
            phase,
            tenant: Some(tenant),
        } = event
        {
            println!("{phase:?} of {tenant} is done");
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let store = open_store(&directory.path().join("notes.redb"))?;
    let notes = store.table("notes")?;
    for customer in ["ada", "bob"] {
        let owner = Owner::Tenant(customer.parse()?);
        store.write(|transaction| {
            let mut table = transaction.table(notes)?;
            for id in ["1", "2", "3"] {
                table.put_values(&owner, &[Some(id.as_bytes()), Some(b"remember this")])?;
            }
            Ok(())
        })?;
    }

    let repository =
        LocalRepository::init(directory.path().join("repository"), repository_id(), now()?)?;
    let resources = Resources::try_new(reinstate::ResourceOptions::default())?;
    let cancellation = Cancellation::new();
    let context = Context::new(&resources, &Progress, &cancellation);
    let options = CaptureOptions::new(SnapshotId::from_bytes(unique(1)), now()?);
    let snapshot = Arc::new(reinstate::capture(context, &store, &repository, &options)?);

    // A script is given the wrong id.
    let ada: Tenant = "customer:ada".parse()?;
    let owner = Owner::Tenant(ada.id.clone());
    store.write(|transaction| transaction.table(notes)?.delete_all(&owner).map(drop))?;

    // In a service the other customers' threads write on through `store` meanwhile.
    let request = RestoreRequest {
        job: JobId::from_bytes(unique(2)),
        snapshot,
        tenants: vec![ada],
        policy: Policy::EXACT,
        drift: DriftRules::default(),
        requested_at: now()?,
    };
    for outcome in reinstate::restore(context, &store, &repository, &request)? {
        match outcome.result?.verdict {
            Verdict::Restored(proof) => {
                println!("{}: {} rows, proven", outcome.tenant, proof.row_count());
            }
            Verdict::Incomplete(findings) | Verdict::IsolationViolated(findings) => {
                return Err(format!("{}: {findings:?}", outcome.tenant).into());
            }
        }
    }
    assert_eq!(store.identity().name, "notes");
    Ok(())
}

fn open_store(path: &std::path::Path) -> Result<EmbeddedStore, Box<dyn std::error::Error>> {
    let column = |name: &str, key_form| ColumnSchema {
        name: name.to_owned(),
        type_name: "text".to_owned(),
        nullable: false,
        key_form,
    };
    let schema = StoreSchema::try_new(vec![TableSchema {
        name: TableName::new("notes"),
        columns: vec![
            column("id", KeyForm::Integer),
            column("text", KeyForm::Bytes),
        ],
        key: vec![ColumnIndex(0)],
        tenancy: Tenancy::Native,
        references: Vec::new(),
    }])?;
    let identity = StoreIdentity {
        id: StoreId::from_bytes(unique(3)),
        name: "notes".to_owned(),
    };
    let kind = TenantKind::parse("customer")?;
    Ok(EmbeddedStore::create(
        path,
        &EmbeddedOptions::default(),
        identity,
        kind,
        schema,
    )?)
}

/// Ids are the service's to choose; a real one takes random bytes.
fn unique(number: u8) -> [u8; 16] {
    [number; 16]
}

fn repository_id() -> RepositoryId {
    RepositoryId::from_bytes(unique(4))
}

fn now() -> Result<Timestamp, Box<dyn std::error::Error>> {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(Timestamp::from_micros(i64::try_from(elapsed.as_micros())?))
}
