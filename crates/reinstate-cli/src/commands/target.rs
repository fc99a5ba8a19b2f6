//! `TENANT@TIME`: one tenant at a point in time, or live.

use reinstate_core::Tenant;

use super::tenants::parse_tenant;
use crate::failure::Failure;
use crate::point::PointInTime;

/// When: as of a snapshot, or now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The live store.
    Live,
    /// A point in time.
    Past(PointInTime),
}

impl Moment {
    /// Reads `live` or a point in time.
    ///
    /// # Errors
    /// Usage.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        if text == "live" {
            return Ok(Self::Live);
        }
        PointInTime::parse(text).map(Self::Past)
    }
}

/// What to export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Whose rows.
    pub tenant: Tenant,
    /// When.
    pub moment: Moment,
    /// Of which table; of all, if none.
    pub table: Option<String>,
    /// With which key.
    pub key: Option<String>,
}

/// Reads `TENANT@TIME`.
///
/// # Errors
/// Usage.
pub fn parse_target(text: &str) -> Result<(Tenant, Moment), Failure> {
    let (tenant, moment) = split(text)?;
    Ok((parse_tenant(tenant)?, Moment::parse(moment)?))
}

/// Reads `TENANT@TIME[:TABLE[/KEY]]`.
///
/// # Errors
/// Usage.
pub fn parse_selection(text: &str) -> Result<Selection, Failure> {
    let (tenant, rest) = split(text)?;
    let tenant = parse_tenant(tenant)?;
    let whole = Moment::parse(rest);
    let error = match whole {
        Ok(moment) => {
            let (table, key) = (None, None);
            return Ok(Selection {
                tenant,
                moment,
                table,
                key,
            });
        }
        Err(error) => error,
    };
    // Times have colons of their own: the shortest beginning that is one leaves the table. A part of a time
    // is a local time, so these count only where there is no other, the longest of them first.
    let mut unclear = None;
    for (place, _) in rest.match_indices(':') {
        let (moment, table) = (&rest[..place], &rest[place + 1..]);
        let (table, key) = match table.split_once('/') {
            Some((table, key)) => (table, Some(key.to_owned())),
            None => (table, None),
        };
        let (Ok(moment), false) = (Moment::parse(moment), table.is_empty()) else {
            continue;
        };
        let is_unclear = matches!(moment, Moment::Past(PointInTime::Unclear { .. }));
        let selection = Selection {
            tenant: tenant.clone(),
            moment,
            table: Some(table.to_owned()),
            key,
        };
        if !is_unclear {
            return Ok(selection);
        }
        unclear = Some(selection);
    }
    unclear.ok_or(error)
}

fn split(text: &str) -> Result<(&str, &str), Failure> {
    // An id may contain @, as in an address; a time never does.
    text.rsplit_once('@').ok_or_else(|| {
        Failure::usage(format!(
            "{text:?}: expected TENANT@TIME, as in account:42@latest"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, moment: &str, table: Option<&str>, key: Option<&str>) {
        let selection = parse_selection(text).unwrap();
        assert_eq!(selection.moment, Moment::parse(moment).unwrap(), "{text}");
        assert_eq!(selection.table.as_deref(), table, "{text}");
        assert_eq!(selection.key.as_deref(), key, "{text}");
    }

    #[test]
    fn a_table_is_told_from_a_time() {
        check("a:1@latest", "latest", None, None);
        check("a:1@latest:issues", "latest", Some("issues"), None);
        check("a:1@snap:3f9a", "snap:3f9a", None, None);
        check(
            "a:1@snap:3f9a:issues/7",
            "snap:3f9a",
            Some("issues"),
            Some("7"),
        );
        let time = "2026-04-05T07:38:00Z";
        check(&format!("a:1@{time}"), time, None, None);
        check(
            &format!("a:1@{time}:issues/a/b"),
            time,
            Some("issues"),
            Some("a/b"),
        );
        let zoned = "2026-04-05T09:38[Europe/Brussels]";
        check(&format!("a:1@{zoned}:issues"), zoned, Some("issues"), None);
        let naked = "2026-04-05T07:38";
        check(&format!("a:1@{naked}:issues"), naked, Some("issues"), None);
        check("a:1@lsn:0/16B374D8", "lsn:0/16B374D8", None, None);
        check(
            "a:1@lsn:0/16B374D8:orders/5",
            "lsn:0/16B374D8",
            Some("orders"),
            Some("5"),
        );
        check(
            "a:1@live:billing.orders",
            "live",
            Some("billing.orders"),
            None,
        );
        assert_eq!(
            parse_target("a:me@home@live").unwrap().0.id.as_bytes(),
            b"me@home"
        );
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for text in [
            "a:1",
            "1@latest",
            "a:1@",
            "a:1@yesterday",
            "a:1@latest:",
            "a:1@:issues",
        ] {
            assert!(parse_selection(text).is_err(), "{text}");
        }
    }
}
