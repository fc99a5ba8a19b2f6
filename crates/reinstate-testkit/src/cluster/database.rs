//! A database that lives as long as a test.

use super::{ClusterError, PostgresCluster};

/// A database of a running cluster. Dropping it drops the database, connected users included.
#[derive(Debug)]
pub struct TestDatabase<'a> {
    cluster: &'a PostgresCluster,
    name: String,
}

impl<'a> TestDatabase<'a> {
    pub(super) fn create(cluster: &'a PostgresCluster, name: String) -> Result<Self, ClusterError> {
        cluster.create_database(&name)?;
        Ok(Self { cluster, name })
    }

    /// The cluster it is in.
    #[must_use]
    pub fn cluster(&self) -> &'a PostgresCluster {
        self.cluster
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the superuser reaches it.
    #[must_use]
    pub fn url(&self) -> String {
        self.cluster.url(&self.name)
    }

    /// Runs SQL in it, as [`PostgresCluster::psql`] does.
    ///
    /// # Errors
    /// At the first statement that fails.
    pub fn psql(&self, sql: &str) -> Result<String, ClusterError> {
        self.cluster.psql(&self.name, sql)
    }

    /// Takes off what a script for a confined role put on the tables: its policies, and row-level
    /// security.
    ///
    /// # Errors
    /// As [`psql`](Self::psql).
    pub fn drop_policies(&self) -> Result<(), ClusterError> {
        self.psql(DROP_POLICIES).map(drop)
    }
}

const DROP_POLICIES: &str = "
DO $$ DECLARE found record; BEGIN
    FOR found IN SELECT polrelid::regclass AS relation, polname FROM pg_policy
                  WHERE polname LIKE 'reinstate\\_%' LOOP
        EXECUTE format('DROP POLICY %I ON %s', found.polname, found.relation);
        IF found.polname = 'reinstate_everybody' THEN
            EXECUTE format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY', found.relation);
        END IF;
    END LOOP;
END $$;
";

impl Drop for TestDatabase<'_> {
    fn drop(&mut self) {
        let arguments = ["--force", "--if-exists", "--", &self.name];
        if let Err(error) = self.cluster.run("dropdb", &arguments) {
            eprintln!("{error}");
        }
    }
}
