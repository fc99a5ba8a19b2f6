//! How many rows each tenant owns, and how they spread over its tables.

use rand_pcg::Pcg64Mcg;

use crate::row::below;
use crate::table::{OWNED_TABLES, Table};
use crate::{LargeTenant, SyntheticSpec};

/// The rows of every tenant. Costs `O(tenants)` to make and four bytes a tenant to keep.
#[derive(Clone, Debug)]
pub(crate) struct Sizes {
    rows: Vec<u32>,
    totals: [u64; OWNED_TABLES],
}

impl Sizes {
    /// Splits the rows of a description that was checked.
    pub(crate) fn of(spec: &SyntheticSpec) -> Self {
        let mut ranked: Vec<u32> = (0..spec.tenant_count).collect();
        if let Some(LargeTenant { index, .. }) = spec.large_tenant {
            ranked.remove(index as usize);
        }
        shuffle(&mut ranked, spec.seed);
        let large = spec.large_tenant.map_or(0, |large| large.row_count);
        let shares = zipf(spec.row_count - large, ranked.len(), spec.skew);
        let mut rows = vec![0; spec.tenant_count as usize];
        for (tenant, share) in ranked.into_iter().zip(shares) {
            rows[tenant as usize] = narrow(share);
        }
        if let Some(LargeTenant { index, row_count }) = spec.large_tenant {
            rows[index as usize] = narrow(row_count);
        }
        let mut totals = [0; OWNED_TABLES];
        for &count in &rows {
            for (total, count) in totals.iter_mut().zip(split(count)) {
                *total += u64::from(count);
            }
        }
        Self { rows, totals }
    }

    /// How many rows a tenant owns in all its tables.
    pub(crate) fn tenant(&self, tenant: u32) -> u32 {
        self.rows[tenant as usize]
    }

    /// How many rows a tenant owns in each of its tables.
    pub(crate) fn tables(&self, tenant: u32) -> [u32; OWNED_TABLES] {
        split(self.tenant(tenant))
    }

    /// How many rows all tenants own in a table.
    pub(crate) fn total(&self, table: Table) -> u64 {
        self.totals[table.owned_index()]
    }

    pub(crate) fn tenant_count(&self) -> u32 {
        narrow(self.rows.len() as u64)
    }
}

/// Splits `rows` over `count` ranks by their weights `1 / rank^skew`, every rank first getting one.
fn zipf(rows: u64, count: usize, skew: f64) -> Vec<u64> {
    let ranks = count as u64;
    let mut shares: Vec<u64> = (0..ranks).map(|rank| u64::from(rank < rows)).collect();
    let Some(spare) = rows.checked_sub(ranks).filter(|_| ranks > 0) else {
        return shares;
    };
    // libm computes the same on every machine, which the platform's own power function may not.
    let weights: Vec<f64> = (0..count)
        .map(|rank| libm::pow(rank as f64 + 1.0, -skew))
        .collect();
    let sum: f64 = weights.iter().sum();
    let mut left = spare;
    for (share, weight) in shares.iter_mut().zip(&weights) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "rounding down is the point, and the value is between 0 and 1e8"
        )]
        let part = ((spare as f64 * weight / sum) as u64).min(left);
        *share += part;
        left -= part;
    }
    let mut rank = 0;
    while left > 0 {
        shares[rank % count] += 1;
        left -= 1;
        rank += 1;
    }
    shares
}

/// Spreads a tenant's rows over its tables: parents first, so that a child always finds one.
fn split(rows: u32) -> [u32; OWNED_TABLES] {
    let mut left = rows;
    let mut take = |count: u32| {
        let taken = count.min(left);
        left -= taken;
        taken
    };
    let hundredths = |percent: u64| narrow(u64::from(rows) * percent / 100);
    let projects = take((rows / 250).max(1));
    let members = take((rows / 50).max(1));
    let issues = take(hundredths(25).max(1));
    let comments = take(hundredths(45));
    [projects, members, issues, comments, left]
}

fn shuffle(ranks: &mut [u32], seed: u64) {
    let mut random = Pcg64Mcg::new(u128::from(seed) << 64 | 0x5eed);
    for place in (1..ranks.len()).rev() {
        let other = below(&mut random, place as u64 + 1);
        ranks.swap(place, usize::try_from(other).unwrap_or(place));
    }
}

fn narrow(count: u64) -> u32 {
    u32::try_from(count).expect("BUG: more rows than ROW_COUNT_MAX")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_row_has_exactly_one_tenant_and_one_table(
            seed: u64, tenants in 1_u32..300, rows in 1_u64..20_000, skew in 0.0..3.0_f64
        ) {
            let spec = SyntheticSpec {
                seed, tenant_count: tenants, row_count: rows, skew, large_tenant: None,
            };
            let sizes = Sizes::of(&spec);
            let sum: u64 = (0..tenants).map(|tenant| u64::from(sizes.tenant(tenant))).sum();
            prop_assert_eq!(sum, rows);
            prop_assert_eq!(sizes.totals.iter().sum::<u64>(), rows);
            let poorest = (0..tenants).map(|tenant| sizes.tenant(tenant)).min();
            prop_assert_eq!(poorest >= Some(1), rows >= u64::from(tenants));
        }

        #[test]
        fn a_child_has_a_parent(rows in 0_u32..100_000) {
            let [projects, members, issues, comments, activity] = split(rows);
            prop_assert_eq!(projects + members + issues + comments + activity, rows);
            prop_assert!(issues == 0 || (projects > 0 && members > 0));
            prop_assert!(comments + activity == 0 || issues > 0);
        }

        #[test]
        fn the_large_tenant_has_the_rows_it_was_given(
            index in 0_u32..50, row_count in 0_u64..5_000
        ) {
            let spec = SyntheticSpec {
                seed: 1,
                tenant_count: 50,
                row_count: 5_000,
                skew: 1.0,
                large_tenant: Some(LargeTenant { index, row_count }),
            };
            prop_assert_eq!(u64::from(Sizes::of(&spec).tenant(index)), row_count);
        }
    }

    #[test]
    fn the_largest_of_a_skewed_store_is_as_large_as_zipf_says() {
        let shares = zipf(1_000_000, 1_000, 1.0);
        // The thousandth harmonic number is 7.485.
        assert!((130_000..137_000).contains(&shares[0]), "{}", shares[0]);
        assert!((shares[0] / shares[9]).abs_diff(10) <= 1);
        let even = zipf(1_000, 10, 0.0);
        assert!(even.iter().all(|&share| share == 100), "{even:?}");
    }
}
