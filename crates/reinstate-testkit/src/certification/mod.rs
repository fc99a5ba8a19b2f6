//! Certification: what every live store must do, one named test per property.
//!
//! An adapter implements [`Fixture`] and calls `reinstate_testkit::certify_live_store!(Its)` in an
//! integration test. Each property is a function that returns the promise that was broken.

mod fixture;
mod observe;
mod properties;
mod scenario;
mod schema;

pub(crate) use fixture::ensure;
pub use fixture::{Fixture, Profile, Violation};
pub(crate) use observe::Row;
pub use observe::{Contents, captured, viewed};
pub use properties::{PROPERTIES, Property, check};
pub use schema::{Flavour, Rows, TENANTS, owner, standard_postgres_ddl, standard_schema, tenant};
