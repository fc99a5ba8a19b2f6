//! `lease`: who is restoring a tenant, and taking it over.

use reinstate_core::LiveStore;
use reinstate_postgres::LeaseHolder;
use serde::Serialize;

use super::parse_tenant;
use crate::arguments::Lease;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::postgres;
use crate::session::Session;

#[derive(Serialize)]
struct LeaseRecord {
    #[serde(rename = "type")]
    record: &'static str,
    tenant: String,
    process: Option<i32>,
    role: Option<String>,
    address: Option<String>,
    since: Option<String>,
    silent_seconds: Option<u64>,
    taken_over: bool,
}

/// `lease TENANT`.
pub fn run(arguments: &Lease, session: &Session<'_>) -> anyhow::Result<Exit> {
    let what = "an embedded store belongs to the process that has its file open: end that one, and \
                the next goes on";
    let store = postgres::needed(session, what)?;
    let tenant = parse_tenant(&arguments.tenant)?;
    let kind = store.tenant_kind();
    if tenant.kind != *kind {
        let message = format!("{tenant}: the tenants of this store are of kind {kind}");
        return Err(Failure::usage(message).into());
    }
    let console = session.console;
    let holder = if arguments.take_over {
        store.take_over(&tenant.id)?
    } else {
        store.lease_holder(&tenant.id)?
    };
    console.record(&record(
        tenant.to_string(),
        holder.as_ref(),
        arguments.take_over,
    ));
    match &holder {
        None => console.line(format_args!("nobody is restoring {tenant}")),
        Some(holder) if arguments.take_over => {
            console.line(format_args!("taken over: {tenant}, from {holder}"));
            console.note(
                "it can commit nothing any more. What it committed before stands: see it with \
                 reinstate diff, and plan anew",
            );
        }
        Some(holder) => {
            console.line(format_args!("{tenant} is being restored by {holder}"));
            console.note(format_args!(
                "if it does not get on: reinstate lease {tenant} --take-over"
            ));
        }
    }
    Ok(Exit::Done)
}

fn record(tenant: String, holder: Option<&LeaseHolder>, is_taken_over: bool) -> LeaseRecord {
    LeaseRecord {
        record: "lease",
        tenant,
        process: holder.map(|holder| holder.process),
        role: holder.and_then(|holder| holder.role.clone()),
        address: holder.and_then(|holder| holder.address.clone()),
        since: holder.and_then(|holder| holder.since.clone()),
        silent_seconds: holder
            .and_then(|holder| holder.silent_for)
            .map(|silent| silent.as_secs()),
        taken_over: is_taken_over && holder.is_some(),
    }
}
