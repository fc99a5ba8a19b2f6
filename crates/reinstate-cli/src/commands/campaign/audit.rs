//! `campaign audit`: who did what when.

use reinstate::{
    CampaignDescription, CampaignEntry, StoredCampaign, audit_journal, campaign_journal,
};
use serde::Serialize;

use super::estate::Estate;
use crate::exit::Exit;
use crate::render::count;

#[derive(Serialize)]
struct EntryRecord<'e> {
    #[serde(rename = "type")]
    record: &'static str,
    at: String,
    actor: &'e str,
    event: &'static str,
    site: Option<String>,
    store: Option<&'e str>,
    batch: Option<u32>,
    gate: Option<&'e str>,
    rows: Option<u64>,
    digest: Option<String>,
    detail: &'e str,
}

#[derive(Serialize)]
struct HeadRecord {
    #[serde(rename = "type")]
    record: &'static str,
    entries: usize,
    head: String,
}

/// `campaign audit [C]`.
pub fn run(estate: &Estate<'_>, campaign: Option<&str>) -> anyhow::Result<Exit> {
    let found = campaign.map(|prefix| estate.find(prefix)).transpose()?;
    let journal = match &found {
        Some(campaign) => campaign_journal(&estate.repository, campaign)?,
        None => audit_journal(&estate.repository)?,
    };
    let console = estate.console;
    let description = found.as_ref().map(StoredCampaign::description);
    let entries = journal.entries();
    for entry in &entries {
        show(estate, description, entry);
    }
    console.record(&HeadRecord {
        record: "journal",
        entries: entries.len(),
        head: journal.head().to_string(),
    });
    console.line(format_args!(
        "{} entries, each record holds the digest of the one before; head {}",
        count(entries.len() as u64),
        journal.head()
    ));
    estate.check_journals()?;
    Ok(Exit::Done)
}

fn show(estate: &Estate<'_>, campaign: Option<&CampaignDescription>, entry: &CampaignEntry) {
    let site = campaign.zip(entry.tenant).and_then(|(campaign, place)| {
        let tenant = campaign.tenants.get(place as usize)?;
        Some(format!("{}:{}", campaign.site_kind, tenant.site))
    });
    let store = campaign.zip(entry.store).and_then(|(campaign, place)| {
        let store = campaign.stores.get(place as usize)?;
        Some(store.name.as_str())
    });
    let record = EntryRecord {
        record: "entry",
        at: entry.at.to_string(),
        actor: &entry.actor,
        event: entry.kind.name(),
        site,
        store,
        batch: entry.batch,
        gate: (!entry.gate.is_empty()).then_some(&entry.gate),
        rows: (entry.rows > 0).then_some(entry.rows),
        digest: entry.digest.map(|digest| digest.to_string()),
        detail: &entry.detail,
    };
    estate.console.record(&record);
    let mut words: Vec<String> = Vec::new();
    words.extend(record.site.clone());
    words.extend(store.map(|store| format!("store {store}")));
    words.extend(record.gate.map(|gate| format!("gate {gate}")));
    words.extend(record.rows.map(|rows| format!("{} rows", count(rows))));
    if record.site.is_none() {
        words.extend(entry.digest.map(|digest| digest.short()));
    }
    if !entry.detail.is_empty() {
        words.push(entry.detail.clone());
    }
    estate.console.line(format_args!(
        "{}  {}  {:<12} {}",
        entry.at,
        entry.actor,
        entry.kind.name(),
        words.join("  ")
    ));
}
