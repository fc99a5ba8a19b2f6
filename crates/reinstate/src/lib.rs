//! Brings chosen tenants of a shared, live, multi-tenant data store back to a point in time.
