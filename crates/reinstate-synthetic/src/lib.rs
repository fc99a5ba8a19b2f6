//! Seeded multi-tenant stores with known answers.
