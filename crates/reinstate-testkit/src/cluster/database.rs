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
}

impl Drop for TestDatabase<'_> {
    fn drop(&mut self) {
        let arguments = ["--force", "--if-exists", "--", &self.name];
        if let Err(error) = self.cluster.run("dropdb", &arguments) {
            eprintln!("{error}");
        }
    }
}
