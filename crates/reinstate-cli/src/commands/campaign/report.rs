//! `campaign report`: what a campaign did, in one file that can be shown.

use std::path::Path;

use reinstate::{StoredCampaign, campaign_journal, campaign_state};

use super::estate::Estate;
use crate::adapters;
use crate::commands::parse_tenant;
use crate::configuration::Configuration;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::written_report::{Seen, write_campaign};

/// `campaign report C -o FILE`. Opens the repositories of the stores, and not the stores.
pub fn run(
    estate: &Estate<'_>,
    campaign: &StoredCampaign,
    site: Option<&str>,
    out: &Path,
) -> anyhow::Result<Exit> {
    let site = site.map(parse_tenant).transpose()?;
    let description = campaign.description();
    if let Some(site) = &site
        && site.kind != description.site_kind
    {
        let message = format!(
            "{site}: sites are of kind {:?}",
            description.site_kind.as_str()
        );
        return Err(Failure::usage(message)
            .next("reinstate campaign status")
            .into());
    }
    let stores = &estate.configuration.stores;
    let mut repositories = Vec::with_capacity(description.stores.len());
    for planned in &description.stores {
        let of = stores.iter().find(|of| of.name == planned.name);
        let of = of.ok_or_else(|| {
            let message = format!(
                "the campaign was planned for a store {:?}, which the estate does not have",
                planned.name
            );
            Failure::usage(message).next("put it back into the estate file")
        })?;
        let configuration = Configuration::read(&of.configuration)?;
        repositories.push(adapters::open_repository(&configuration.repository)?);
    }
    let journal = campaign_journal(&estate.repository, campaign)?;
    let state = journal.look(|entries| campaign_state(campaign, entries));
    let seen = Seen {
        campaign,
        journal: &journal,
        state: &state,
        repositories: &repositories,
    };
    let only = site.as_ref().map(|site| &site.id);
    write_campaign(estate.console, &seen, only, out)
}
