//! Approval: nothing is run that not enough people agreed to, and who was refused is written down.

use reinstate_core::{Digest, ErrorKind, Timestamp};
use reinstate_format::{CampaignEntry, EntryKind};

use super::journal::Journal;
use super::record::StoredCampaign;
use super::state::{CampaignStage, campaign_state};
use crate::Error;

/// Notes that somebody approved the campaign with this digest. Returns how many people did so far.
///
/// Approving again does nothing.
///
/// # Errors
/// `Altered` if the campaign has another digest, or is over. The attempt is in the journal then.
pub fn approve_campaign(
    campaign: &StoredCampaign,
    journal: &Journal<'_>,
    digest: Digest,
    actor: &str,
    at: Timestamp,
) -> Result<usize, Error> {
    let state = journal.look(|entries| campaign_state(campaign, entries));
    let short = campaign.description().campaign.short();
    if digest != campaign.digest() {
        let message = format!(
            "approve campaign {short}: its digest is {}, not {}",
            campaign.digest().short(),
            digest.short()
        );
        return Err(refuse(journal, actor, at, ErrorKind::Altered, message));
    }
    if matches!(
        state.stage,
        CampaignStage::Aborted | CampaignStage::Undoing | CampaignStage::Undone
    ) {
        let message = format!("approve campaign {short}: it was aborted. Make a new one");
        return Err(refuse(journal, actor, at, ErrorKind::Altered, message));
    }
    let mut people = state.approved_by;
    if people.insert(actor.to_owned()) {
        let mut entry = CampaignEntry::new(at, actor, EntryKind::Approved);
        entry.digest = Some(digest);
        journal.append(vec![entry])?;
    }
    Ok(people.len())
}

/// Writes down that somebody asked for something and was refused; returns the error. If it cannot be
/// written down, the error says that.
pub fn refuse(
    journal: &Journal<'_>,
    actor: &str,
    at: Timestamp,
    kind: ErrorKind,
    message: String,
) -> Error {
    let mut entry = CampaignEntry::new(at, actor, EntryKind::Refused);
    entry.detail.clone_from(&message);
    match journal.append(vec![entry]) {
        Ok(()) => Error::new(kind, message),
        Err(error) => {
            let message = format!("{message}; and that could not be written down");
            Error::because(kind, message, error)
        }
    }
}
