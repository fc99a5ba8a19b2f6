//! A store with something in it, and how properties write to it.

use reinstate_core::{
    ChangeSource, Committed, Digest, Fingerprint, JobId, JournalEntry, LiveStore, Owner,
    StoreError, StoreSchema, TenantId, TenantWriter,
};

use crate::certification::{Contents, Fixture, Flavour, Rows, TENANTS, Violation, owner};
use crate::{ApplicationChange, ApplicationRow, Changes, KeySpace};

/// How far apart the ids of two tenants are where keys must differ.
const ID_STEP: i64 = 10_000;

/// A fixture that holds rows of every tenant, with the knowledge of what they are.
pub(crate) struct Scenario<'f> {
    pub(crate) fixture: &'f dyn Fixture,
    pub(crate) rows: Rows,
    pub(crate) schema: StoreSchema,
    pub(crate) expected: Contents,
}

impl<'f> Scenario<'f> {
    /// Fills every table for every tenant, duplicates, NULLs and odd characters included.
    pub(crate) fn populate(fixture: &'f dyn Fixture) -> Result<Self, Violation> {
        fixture.store().prepare()?;
        let mut scenario = Self {
            fixture,
            rows: Rows {
                flavour: fixture.profile().flavour,
                key_space: fixture.profile().key_space,
            },
            schema: fixture.store().read_view()?.schema().clone(),
            expected: Contents::default(),
        };
        let mut changes = vec![
            ApplicationChange::Put(scenario.rows.currency("EUR", "euro")),
            ApplicationChange::Put(scenario.rows.currency("XTS", "")),
        ];
        for name in TENANTS {
            changes.extend(
                scenario
                    .rows_of(name)
                    .into_iter()
                    .map(ApplicationChange::Put),
            );
        }
        if scenario.rows.flavour == Flavour::Columns {
            let shared = scenario.rows.project(&Owner::Shared, 900_001, Some("x"));
            let mut nameless = scenario.rows.project(&Owner::Shared, 900_002, Some("y"));
            // An empty account is nobody's, as NULL is.
            nameless.values[1] = Some(Vec::new());
            changes.extend([shared, nameless].map(ApplicationChange::Put));
        }
        scenario.write(&changes)?;
        Ok(scenario)
    }

    /// The rows that a tenant starts with.
    pub(crate) fn rows_of(&self, name: &str) -> Vec<ApplicationRow> {
        let rows = self.rows;
        let owner = owner(name);
        let id = |number| self.id(name, number);
        vec![
            rows.project(&owner, id(1), Some("first")),
            rows.project(&owner, id(2), None),
            rows.issue(
                &owner,
                id(1),
                id(1),
                Some("crash"),
                Some("tab\there, line\nbreak"),
            ),
            rows.issue(&owner, id(2), id(1), None, Some("")),
            rows.issue(
                &owner,
                id(3),
                id(2),
                Some(""),
                Some("caf\u{e9} \u{1f600} \\N 'quoted'"),
            ),
            rows.comment(&owner, id(1), id(1), Some("see above")),
            rows.comment(&owner, id(2), id(3), None),
            rows.activity(&owner, Some("issue"), Some("viewed")),
            rows.activity(&owner, Some("issue"), Some("viewed")),
            rows.activity(&owner, Some("issue"), Some("viewed")),
            rows.activity(&owner, None, Some("")),
            rows.activity(&owner, Some(""), None),
            rows.setting(&owner, "theme", Some("dark")),
            rows.setting(&owner, "theme2", Some("light")),
        ]
    }

    /// An id of a tenant: the same for all where the store allows it.
    pub(crate) fn id(&self, name: &str, number: i64) -> i64 {
        if self.fixture.profile().key_space == KeySpace::PerTenant {
            return number;
        }
        let place = TENANTS
            .iter()
            .position(|tenant| *tenant == name)
            .unwrap_or(0);
        (i64::try_from(place).unwrap_or(0) + 1) * ID_STEP + number
    }

    /// Writes as the application does, and knows it.
    pub(crate) fn write(&mut self, changes: &[ApplicationChange]) -> Result<(), Violation> {
        self.fixture.application_write(changes)?;
        self.expected.write(&self.schema, changes)?;
        Ok(())
    }

    pub(crate) fn store(&self) -> &'f dyn LiveStore {
        self.fixture.store()
    }

    pub(crate) fn fingerprint(&self, tenant: &TenantId) -> Result<Fingerprint, Violation> {
        Ok(self.store().read_view()?.fingerprint(tenant)?)
    }

    /// Opens a tenant for writing with the state and the tables that it has now.
    pub(crate) fn begin(&self, tenant: &TenantId) -> Result<Box<dyn TenantWriter + 'f>, Violation> {
        let fingerprint = self.fingerprint(tenant)?;
        Ok(self
            .store()
            .begin_merge(tenant, &fingerprint, &self.schema)?)
    }

    /// Makes changes in one merge and commits them.
    pub(crate) fn merge(
        &self,
        tenant: &TenantId,
        changes: &dyn ChangeSource,
        job: u8,
    ) -> Result<Committed, Violation> {
        let mut writer = self.begin(tenant)?;
        writer.apply(changes)?;
        Ok(writer.commit(&entry(tenant, job))?)
    }

    pub(crate) fn changes(&self) -> Changes {
        Changes::new(&self.schema)
    }
}

/// A journal entry of a run.
pub(crate) fn entry(tenant: &TenantId, job: u8) -> JournalEntry {
    JournalEntry {
        job: JobId::from_bytes([job; 16]),
        tenant: tenant.clone(),
        plan: Digest::from_bytes([job ^ 0xff; 32]),
        payload: vec![0, job, b'\'', b'\\', 0xff],
    }
}

/// The kind of the error, or a violation if there is none.
pub(crate) fn error_of<T>(
    result: Result<T, StoreError>,
    what: &str,
) -> Result<StoreError, Violation> {
    match result {
        Ok(_) => Err(Violation::new(format!("{what}: it was accepted"))),
        Err(error) => Ok(error),
    }
}
