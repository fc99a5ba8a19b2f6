//! The job record: which plan a run applies. Noted before the run's first write, so that undo
//! finds the plan whatever becomes of the run.

use reinstate_core::{Digest, JobId, ObjectId, Timestamp};
use wincode::{SchemaRead, SchemaWrite};

use crate::FormatError;
use crate::frame::FrameKind;
use crate::wire;

pub(crate) const JOB: FrameKind = FrameKind {
    magic: *b"RNSTJOBS",
    version: 1,
    structure: "job record",
};

/// Which plan a run applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobDescription {
    /// The run.
    pub job: JobId,
    /// The digest of its plan.
    pub plan: Digest,
    /// The object in the repository that holds that plan.
    pub plan_object: ObjectId,
    /// When it began.
    pub started_at: Timestamp,
    /// The job that it takes back, if it is an undo.
    pub undoes: Option<JobId>,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireJob {
    job: [u8; 16],
    plan: [u8; 32],
    plan_object: [u8; 16],
    started_at_micros: i64,
    undoes: Option<[u8; 16]>,
}

/// Writes a job record.
#[must_use]
pub fn encode_job(job: &JobDescription) -> Vec<u8> {
    let wire = WireJob {
        job: *job.job.as_bytes(),
        plan: *job.plan.as_bytes(),
        plan_object: *job.plan_object.as_bytes(),
        started_at_micros: job.started_at.as_micros(),
        undoes: job.undoes.map(|job| *job.as_bytes()),
    };
    JOB.encode(&wire).0
}

/// Reads the record of this job.
///
/// # Errors
/// Any of the frame's; `Foreign` if it is another job's.
pub fn decode_job(bytes: &[u8], expected: JobId) -> Result<JobDescription, FormatError> {
    let (wire, _) = JOB.decode::<WireJob>(bytes)?;
    let job = JobId::from_bytes(wire.job);
    if job != expected {
        return Err(FormatError::Foreign {
            structure: JOB.structure,
            expected: format!("job {expected}"),
            found: format!("job {job}"),
        });
    }
    Ok(JobDescription {
        job,
        plan: Digest::from_bytes(wire.plan),
        plan_object: ObjectId::from_bytes(wire.plan_object),
        started_at: Timestamp::from_micros(wire.started_at_micros),
        undoes: wire::job(wire.undoes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::check_frame_against_bincode;

    #[test]
    fn the_layout_is_that_of_bincode() {
        let golden = include_bytes!("../tests/golden/v1/job");
        check_frame_against_bincode::<WireJob>(&JOB, golden);
    }
}
