//! Types of tenant columns, and which texts are values of them.

use reinstate_core::TenantId;

use crate::sql::literal;

/// A type whose values are told apart exactly by their text, so that comparing values and
/// comparing texts is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TenantType {
    SmallInt,
    Integer,
    BigInt,
    Text,
    /// `character(n)`: blanks at the end do not count.
    Blank,
    Uuid,
    /// An enumeration: its name as SQL, and its labels.
    Enumeration(String, Vec<String>),
}

impl TenantType {
    /// The built-in type with this object id.
    pub(crate) fn of_builtin(oid: u32) -> Option<Self> {
        Some(match oid {
            20 => Self::BigInt,
            21 => Self::SmallInt,
            23 => Self::Integer,
            25 | 1043 => Self::Text,
            1042 => Self::Blank,
            2950 => Self::Uuid,
            _ => return None,
        })
    }

    /// The tenant's id as a SQL value of this type; none if the id is not how the type writes
    /// any of its values, so that no row can have it.
    pub(crate) fn sql_value(&self, tenant: &TenantId) -> Option<String> {
        let text = std::str::from_utf8(tenant.as_bytes()).ok()?;
        let (is_value, type_sql) = match self {
            Self::SmallInt => (is_canonical::<i16>(text), "pg_catalog.int2"),
            Self::Integer => (is_canonical::<i32>(text), "pg_catalog.int4"),
            Self::BigInt => (is_canonical::<i64>(text), "pg_catalog.int8"),
            Self::Text => (!text.contains('\0'), "pg_catalog.text"),
            Self::Blank => (
                !text.contains('\0') && !text.ends_with(' '),
                "pg_catalog.bpchar",
            ),
            Self::Uuid => (is_uuid(text), "pg_catalog.uuid"),
            Self::Enumeration(name, labels) => {
                (labels.iter().any(|label| label == text), name.as_str())
            }
        };
        is_value.then(|| format!("{}::{type_sql}", literal(text)))
    }
}

fn is_canonical<T: std::str::FromStr + ToString>(text: &str) -> bool {
    text.parse::<T>()
        .is_ok_and(|value| value.to_string() == text)
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_text_that_the_server_writes_is_a_value() {
        let value =
            |kind: &TenantType, text: &str| kind.sql_value(&TenantId::try_new(text).unwrap());
        let uuid = "0f8fad5b-d9cb-469f-a165-70867728950e";
        let labels = TenantType::Enumeration("\"s\".\"e\"".to_owned(), vec!["a b".to_owned()]);
        for (kind, text) in [
            (&TenantType::BigInt, "-9223372036854775808"),
            (&TenantType::SmallInt, "32767"),
            (&TenantType::Text, " a'b "),
            (&TenantType::Uuid, uuid),
            (&labels, "a b"),
        ] {
            assert!(value(kind, text).is_some(), "{kind:?} {text:?}");
        }
        for (kind, text) in [
            (&TenantType::BigInt, "007"),
            (&TenantType::BigInt, "+1"),
            (&TenantType::BigInt, "abc"),
            (&TenantType::SmallInt, "32768"),
            (&TenantType::Text, "a\0b"),
            (&TenantType::Blank, "a "),
            (&TenantType::Uuid, "0F8FAD5B-D9CB-469F-A165-70867728950E"),
            (&labels, "c"),
        ] {
            assert_eq!(value(kind, text), None, "{kind:?} {text:?}");
        }
        assert_eq!(
            value(&TenantType::Text, "a'b").unwrap(),
            "'a''b'::pg_catalog.text"
        );
    }
}
