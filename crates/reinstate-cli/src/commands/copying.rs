//! `--into side:NEWID`: which id a tenant is copied under, and the file that says which key became
//! which.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};

use reinstate_core::{
    CampaignId, ErrorKind, JobId, ObjectWriter, RowRef, SnapshotId, TableSchema, Tenant, TenantId,
};
use reinstate_repository::create_file;
use serde::{Serialize, Serializer};

use crate::arguments::Copying;
use crate::failure::Failure;
use crate::render::key_parts;

/// How many bytes are gathered before they are written.
const BUFFER_BYTES: usize = 64 * 1024;

/// Where a tenant is copied to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The copy's id.
    pub tenant: TenantId,
    /// Where to write down which key became which.
    pub remap: Option<PathBuf>,
}

impl Target {
    /// What the options say; none if rows go back to where they were. With a plan to be saved, the
    /// remap file is beside it unless it is named.
    ///
    /// # Errors
    /// Usage.
    pub fn parse(options: &Copying, plan: Option<&Path>) -> Result<Option<Self>, Failure> {
        let text = match options.into.as_deref() {
            None => return Ok(None),
            Some("live") if options.remap_out.is_some() => {
                let message = "--remap-out goes with --into side:NEWID";
                return Err(Failure::usage(message).next("reinstate plan --help"));
            }
            Some("live") => return Ok(None),
            Some(text) => text,
        };
        let wrong = || {
            let message = format!("--into {text:?}: expected side:NEWID, as in side:9007, or live");
            Failure::usage(message).next("reinstate plan --help")
        };
        let id = text.strip_prefix("side:").ok_or_else(wrong)?;
        let tenant = id.parse().map_err(|error| wrong().because(error))?;
        let beside = plan.map(|plan| {
            let mut name = plan.as_os_str().to_owned();
            name.push(".remap");
            PathBuf::from(name)
        });
        let remap = options.remap_out.clone().or(beside);
        Ok(Some(Self { tenant, remap }))
    }
}

/// The file that says which key became which: JSON lines, the first about the copy itself, the others
/// about one row each.
#[derive(Debug)]
pub struct RemapFile {
    path: PathBuf,
    lines: RefCell<Lines>,
}

struct Lines {
    writer: Box<dyn ObjectWriter>,
    gathered: Vec<u8>,
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Lines").finish_non_exhaustive()
    }
}

impl RemapFile {
    /// Begins the file, which must not exist yet. It is there when it is complete.
    ///
    /// # Errors
    /// Usage if there is one; otherwise as the file system has it.
    pub fn create(
        path: &Path,
        original: &Tenant,
        copy: &TenantId,
        (snapshot, job): (SnapshotId, JobId),
    ) -> Result<Self, Failure> {
        let head = Head {
            record: "remap",
            of: original.to_string(),
            into: format!("{}:{copy}", original.kind),
            snapshot: snapshot.to_string(),
            job: job.to_string(),
        };
        Self::begin(path, &head)
    }

    /// Begins the file of a campaign, which says of each row whose it is.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn of_campaign(path: &Path, campaign: CampaignId) -> Result<Self, Failure> {
        let campaign = campaign.to_string();
        let head = CampaignHead {
            record: "remap",
            campaign,
        };
        Self::begin(path, &head)
    }

    fn begin(path: &Path, head: &impl Serialize) -> Result<Self, Failure> {
        let writer = create_file(path).map_err(|error| {
            let message = format!("write down the new keys in {}", path.display());
            Failure::new(error.kind(), message)
                .because(error)
                .next("choose another file")
        })?;
        let failed = |error: io::Error| {
            Failure::new(ErrorKind::Other, "write down the new keys").because(error)
        };
        let mut gathered = Vec::new();
        push_line(&mut gathered, head).map_err(failed)?;
        let lines = RefCell::new(Lines {
            writer: Box::new(writer),
            gathered,
        });
        let path = path.to_owned();
        Ok(Self { path, lines })
    }

    /// Writes down one row.
    ///
    /// # Errors
    /// As the file system has it.
    pub fn write(&self, table: &TableSchema, old: RowRef<'_>, new: RowRef<'_>) -> io::Result<()> {
        self.write_of(None, table, old, new)
    }

    /// Writes down one row, and in which store it is of which site.
    ///
    /// # Errors
    /// As the file system has it.
    pub fn write_of(
        &self,
        of: Option<(&str, &Tenant)>,
        table: &TableSchema,
        old: RowRef<'_>,
        new: RowRef<'_>,
    ) -> io::Result<()> {
        let key = |row: RowRef<'_>| Key {
            names: table,
            values: key_parts(row.key()).unwrap_or_default(),
        };
        let line = Line {
            record: "key",
            store: of.map(|(store, _)| store),
            site: of.map(|(_, site)| site.to_string()),
            table: table.name.as_str(),
            old: key(old),
            new: key(new),
        };
        let mut lines = self.lines.borrow_mut();
        push_line(&mut lines.gathered, &line)?;
        if lines.gathered.len() >= BUFFER_BYTES {
            lines.flush()?;
        }
        Ok(())
    }

    /// Completes the file; returns its name.
    ///
    /// # Errors
    /// As the file system has it.
    pub fn seal(self) -> Result<PathBuf, Failure> {
        let failure = |error: io::Error| {
            let message = format!(
                "the plan was made, but not {}, which says what its keys were",
                self.path.display()
            );
            Failure::new(ErrorKind::Other, message).because(error)
        };
        let mut lines = self.lines.into_inner();
        lines.flush().map_err(failure)?;
        let sealed = lines.writer.seal();
        sealed.map_err(|error| failure(io::Error::other(error)))?;
        Ok(self.path.clone())
    }
}

impl Lines {
    fn flush(&mut self) -> io::Result<()> {
        let written = self.writer.write(&self.gathered);
        self.gathered.clear();
        written.map_err(|error| match error.kind() {
            ErrorKind::Full => io::Error::new(io::ErrorKind::StorageFull, error),
            _ => io::Error::other(error),
        })
    }
}

fn push_line(lines: &mut Vec<u8>, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *lines, line)?;
    lines.push(b'\n');
    Ok(())
}

/// What the file is about.
#[derive(Serialize)]
struct Head {
    #[serde(rename = "type")]
    record: &'static str,
    of: String,
    into: String,
    snapshot: String,
    job: String,
}

/// Of which campaign it is.
#[derive(Serialize)]
struct CampaignHead {
    #[serde(rename = "type")]
    record: &'static str,
    campaign: String,
}

/// One row.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    record: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    site: Option<String>,
    table: &'a str,
    old: Key<'a>,
    new: Key<'a>,
}

/// A key, column by column.
struct Key<'a> {
    names: &'a TableSchema,
    values: Vec<String>,
}

impl Serialize for Key<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let names = self.names.key.iter();
        let names = names.map(|column| &self.names.columns[column.get()].name);
        serializer.collect_map(names.zip(&self.values))
    }
}
