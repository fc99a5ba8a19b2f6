//! What only an operator knows: gates that a tenant has to pass, and how it is closed and opened.

use wincode::{SchemaRead, SchemaWrite};

use crate::FormatError;

/// Something that is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CampaignStep {
    /// A statement in the store of this place; `$1` is the tenant's id there.
    Sql {
        /// The store's place in the campaign.
        store: u32,
        /// The statement.
        text: String,
    },
    /// A program with its arguments; `{site}` in one is the site's id.
    Command(Vec<String>),
}

/// Something that is run once a tenant, and has to be harmless when it is run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CampaignAction {
    /// What.
    pub step: CampaignStep,
    /// After how many seconds it is stopped and counts as failed.
    pub timeout_seconds: u32,
}

/// What a gate looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CampaignCheck {
    /// A statement that answers exactly this, or a program that ends well.
    Step {
        /// What is run.
        step: CampaignStep,
        /// The answer that a statement has to give, as text. Of no effect for a program.
        expected: String,
        /// After how many seconds it is stopped and counts as failed.
        timeout_seconds: u32,
    },
    /// Somebody says that the tenant is accepted.
    Acceptance,
}

/// What a tenant has to pass after a phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CampaignGate {
    /// What it is called; each once.
    pub name: String,
    /// After which phase.
    pub phase: u8,
    /// What it looks at.
    pub check: CampaignCheck,
}

/// Persisted: never renumber.
const STEP_SQL: u8 = 1;
/// Persisted: never renumber.
const STEP_COMMAND: u8 = 2;

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub(super) struct WireStep {
    kind: u8,
    store: u32,
    words: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub(super) struct WireAction {
    step: WireStep,
    timeout_seconds: u32,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub(super) struct WireGate {
    name: String,
    phase: u8,
    step: Option<WireAction>,
    expected: String,
}

impl From<&CampaignStep> for WireStep {
    fn from(step: &CampaignStep) -> Self {
        match step {
            CampaignStep::Sql { store, text } => Self {
                kind: STEP_SQL,
                store: *store,
                words: vec![text.clone()],
            },
            CampaignStep::Command(words) => Self {
                kind: STEP_COMMAND,
                store: 0,
                words: words.clone(),
            },
        }
    }
}

impl WireStep {
    fn into_step(mut self, structure: &'static str) -> Result<CampaignStep, FormatError> {
        match (self.kind, self.store, self.words.len()) {
            (STEP_SQL, store, 1) => Ok(CampaignStep::Sql {
                store,
                text: self.words.remove(0),
            }),
            (STEP_COMMAND, 0, 1..) => Ok(CampaignStep::Command(self.words)),
            (kind, ..) => {
                let message = format!("a step of kind {kind} that cannot be run");
                Err(FormatError::malformed(structure, message))
            }
        }
    }
}

impl From<&CampaignAction> for WireAction {
    fn from(action: &CampaignAction) -> Self {
        Self {
            step: WireStep::from(&action.step),
            timeout_seconds: action.timeout_seconds,
        }
    }
}

impl WireAction {
    pub(super) fn into_action(
        self,
        structure: &'static str,
    ) -> Result<CampaignAction, FormatError> {
        Ok(CampaignAction {
            step: self.step.into_step(structure)?,
            timeout_seconds: self.timeout_seconds,
        })
    }
}

impl From<&CampaignGate> for WireGate {
    fn from(gate: &CampaignGate) -> Self {
        let (step, expected) = match &gate.check {
            CampaignCheck::Acceptance => (None, String::new()),
            CampaignCheck::Step {
                step,
                expected,
                timeout_seconds,
            } => {
                let step = WireAction {
                    step: WireStep::from(step),
                    timeout_seconds: *timeout_seconds,
                };
                (Some(step), expected.clone())
            }
        };
        Self {
            name: gate.name.clone(),
            phase: gate.phase,
            step,
            expected,
        }
    }
}

impl WireGate {
    pub(super) fn into_gate(self, structure: &'static str) -> Result<CampaignGate, FormatError> {
        let check = match self.step {
            None if self.expected.is_empty() => CampaignCheck::Acceptance,
            None => {
                let message = "an acceptance that expects an answer";
                return Err(FormatError::malformed(structure, message.to_owned()));
            }
            Some(action) => {
                let action = action.into_action(structure)?;
                CampaignCheck::Step {
                    step: action.step,
                    expected: self.expected,
                    timeout_seconds: action.timeout_seconds,
                }
            }
        };
        Ok(CampaignGate {
            name: self.name,
            phase: self.phase,
            check,
        })
    }
}
