//! What a synthetic store should be like.

/// The most tenants a store can have.
pub const TENANT_COUNT_MAX: u32 = 100_000;

/// The most tenant-owned rows a store can have.
pub const ROW_COUNT_MAX: u64 = 100_000_000;

/// The steepest split of rows over tenants; beyond it, all but a few would have one row.
const SKEW_MAX: f64 = 8.0;

/// A description of a synthetic store. Equal descriptions give equal bytes, on every machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SyntheticSpec {
    /// Where all variety comes from.
    pub seed: u64,
    /// How many tenants there are; 1 to [`TENANT_COUNT_MAX`].
    pub tenant_count: u32,
    /// How many rows the tenants own together; up to [`ROW_COUNT_MAX`]. The few rows of shared
    /// tables come on top. Every tenant owns at least one row if there are enough.
    pub row_count: u64,
    /// The Zipf exponent of the split of rows over tenants, 0 to 8: the k-th largest tenant is
    /// `k^skew` times smaller than the largest. Zero makes all the same.
    pub skew: f64,
    /// A tenant of a size that is given instead.
    pub large_tenant: Option<LargeTenant>,
}

/// One tenant that owns exactly so many of the store's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LargeTenant {
    /// Which tenant, counted from zero.
    pub index: u32,
    /// How many rows it owns.
    pub row_count: u64,
}

/// A description that no store can satisfy.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// There are no tenants, or too many.
    #[error("synthetic store of {0} tenants: expected 1 to {TENANT_COUNT_MAX}")]
    TenantCount(u32),
    /// There are no rows, or too many.
    #[error("synthetic store of {0} rows: expected 1 to {ROW_COUNT_MAX}")]
    RowCount(u64),
    /// The exponent is negative, too large or not a number.
    #[error("synthetic store of skew {0}: expected 0 to {SKEW_MAX}")]
    Skew(f64),
    /// The large tenant does not exist, or the rows do not suffice for it.
    #[error("large tenant {index} of {row_count} rows: no such tenant, or not so many rows")]
    LargeTenant {
        /// Which tenant was asked for.
        index: u32,
        /// How many rows it should own.
        row_count: u64,
    },
}

impl SyntheticSpec {
    /// Checks the numbers against each other.
    ///
    /// # Errors
    /// Whichever number is out of bounds first. A lone tenant must own every row.
    pub fn check(&self) -> Result<(), SpecError> {
        if !(1..=TENANT_COUNT_MAX).contains(&self.tenant_count) {
            return Err(SpecError::TenantCount(self.tenant_count));
        }
        if !(1..=ROW_COUNT_MAX).contains(&self.row_count) {
            return Err(SpecError::RowCount(self.row_count));
        }
        if !(0.0..=SKEW_MAX).contains(&self.skew) {
            return Err(SpecError::Skew(self.skew));
        }
        let Some(LargeTenant { index, row_count }) = self.large_tenant else {
            return Ok(());
        };
        let fits = if self.tenant_count == 1 {
            row_count == self.row_count
        } else {
            row_count <= self.row_count
        };
        if fits && index < self.tenant_count {
            Ok(())
        } else {
            Err(SpecError::LargeTenant { index, row_count })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_bounds_are_refused_by_name() {
        let good = SyntheticSpec {
            seed: 0,
            tenant_count: 2,
            row_count: 10,
            skew: 1.0,
            large_tenant: None,
        };
        assert_eq!(good.check(), Ok(()));
        let large = |index, row_count| SyntheticSpec {
            large_tenant: Some(LargeTenant { index, row_count }),
            ..good
        };
        assert_eq!(large(1, 10).check(), Ok(()));
        for bad in [
            SyntheticSpec {
                tenant_count: 0,
                ..good
            },
            SyntheticSpec {
                tenant_count: TENANT_COUNT_MAX + 1,
                ..good
            },
            SyntheticSpec {
                row_count: 0,
                ..good
            },
            SyntheticSpec {
                row_count: ROW_COUNT_MAX + 1,
                ..good
            },
            SyntheticSpec {
                skew: f64::NAN,
                ..good
            },
            SyntheticSpec { skew: -0.1, ..good },
            large(2, 1),
            large(0, 11),
            SyntheticSpec {
                tenant_count: 1,
                ..large(0, 9)
            },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
