//! Campaigns in a repository.

use reinstate_core::{CampaignId, Digest, ErrorKind, Repository};
use reinstate_format::{CampaignDescription, CampaignTenant, decode_campaign, encode_campaign};

use crate::Error;

/// Name of the kind of record that a campaign is.
const CAMPAIGN_RECORD: &str = "campaign";

/// A campaign that lies in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCampaign {
    description: CampaignDescription,
    digest: Digest,
}

impl StoredCampaign {
    /// What it will do.
    #[must_use]
    pub fn description(&self) -> &CampaignDescription {
        &self.description
    }

    /// The digest that stands for all of it: what is approved.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The tenants of a batch, with their places, in the order of their priority.
    pub fn batch(&self, batch: u32) -> impl Iterator<Item = (u32, &CampaignTenant)> {
        let tenants = (0..).zip(&self.description.tenants);
        tenants.filter(move |(_, tenant)| tenant.batch == batch)
    }
}

/// Keeps a campaign.
pub(super) fn store_campaign(
    repository: &dyn Repository,
    description: CampaignDescription,
) -> Result<StoredCampaign, Error> {
    let (bytes, digest) = encode_campaign(&description);
    let name = *description.campaign.as_bytes();
    repository
        .publish(CAMPAIGN_RECORD, name, &bytes)
        .map_err(Error::repository("keep the campaign"))?;
    Ok(StoredCampaign {
        description,
        digest,
    })
}

/// A campaign.
///
/// # Errors
/// `NotFound` if there is none of this id; `Altered` if it is not what was planned.
pub fn campaign_of(
    repository: &dyn Repository,
    campaign: CampaignId,
) -> Result<StoredCampaign, Error> {
    let bytes = repository
        .read(CAMPAIGN_RECORD, *campaign.as_bytes())
        .map_err(Error::repository(format!("read campaign {campaign}")))?;
    let read = decode_campaign(&bytes, repository.id(), campaign);
    let (description, digest) = read.map_err(|source| {
        if source.kind() != ErrorKind::Corrupt {
            return Error::format(format!("read campaign {campaign}"))(source);
        }
        let message = format!(
            "campaign {campaign} is not what was planned: it was edited, cut short or damaged. Make \
             a new one"
        );
        Error::altered(message, source)
    })?;
    Ok(StoredCampaign {
        description,
        digest,
    })
}

/// Every campaign of a repository, oldest first.
///
/// # Errors
/// `Altered` if one is not what was planned.
pub fn campaigns(repository: &dyn Repository) -> Result<Vec<StoredCampaign>, Error> {
    let names = repository
        .list(CAMPAIGN_RECORD)
        .map_err(Error::repository("list campaigns"))?;
    let mut campaigns = names
        .into_iter()
        .map(|name| campaign_of(repository, CampaignId::from_bytes(name)))
        .collect::<Result<Vec<_>, _>>()?;
    campaigns.sort_by_key(|found| (found.description.planned_at, found.description.campaign));
    Ok(campaigns)
}
