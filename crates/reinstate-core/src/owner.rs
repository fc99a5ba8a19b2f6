//! Tenants and the owners of rows.

use std::fmt;
use std::str::FromStr;

/// The longest tenant id, in bytes.
pub const TENANT_ID_BYTES_MAX: usize = 1024;

/// The kind of id that names a tenant: `account`, `site`. Two kinds never compare equal, so a
/// list of application ids cannot be taken for a list of site ids.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantKind(String);

/// A text that does not name a tenant or a kind of tenant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseTenantError {
    /// The kind is not 1 to 32 lowercase letters, digits, `_` or `-`, starting with a letter.
    #[error("tenant kind {0:?}: expected 1 to 32 of a-z, 0-9, _ and -, starting with a letter")]
    Kind(String),
    /// There is no colon between kind and id.
    #[error("tenant {0:?}: expected KIND:ID, as in account:42")]
    NoKind(String),
    /// The id is empty or longer than [`TENANT_ID_BYTES_MAX`].
    #[error("tenant id of {0} bytes: expected 1 to {TENANT_ID_BYTES_MAX}")]
    Length(usize),
    /// A percent sign is not followed by two hexadecimal digits.
    #[error("tenant {0:?}: % must be followed by two hexadecimal digits")]
    Escape(String),
}

impl TenantKind {
    /// The kind with this name.
    ///
    /// # Errors
    /// `Kind` if the name is not 1 to 32 of `a-z`, `0-9`, `_`, `-`, or does not start with a letter.
    pub fn parse(name: &str) -> Result<Self, ParseTenantError> {
        let valid = (1..=32).contains(&name.len())
            && name.starts_with(|first: char| first.is_ascii_lowercase())
            && name
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
        if valid {
            Ok(Self(name.to_owned()))
        } else {
            Err(ParseTenantError::Kind(name.to_owned()))
        }
    }

    /// The kind's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The opaque bytes that tell one tenant from another inside a store; 1 to
/// [`TENANT_ID_BYTES_MAX`] of them. In a SQL store: the tenant column's value in text form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(Vec<u8>);

impl TenantId {
    /// The id made of these bytes.
    ///
    /// # Errors
    /// `Length` if there are none or more than [`TENANT_ID_BYTES_MAX`].
    pub fn try_new(bytes: impl Into<Vec<u8>>) -> Result<Self, ParseTenantError> {
        let bytes = bytes.into();
        if (1..=TENANT_ID_BYTES_MAX).contains(&bytes.len()) {
            Ok(Self(bytes))
        } else {
            Err(ParseTenantError::Length(bytes.len()))
        }
    }

    /// The bytes of the id.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for TenantId {
    /// Printable ASCII as it is; everything else, and `%`, as `%XX`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in &self.0 {
            match byte {
                b'%' => formatter.write_str("%25")?,
                b'!'..=b'~' => write!(formatter, "{}", char::from(byte))?,
                _ => write!(formatter, "%{byte:02X}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TenantId({self})")
    }
}

impl FromStr for TenantId {
    type Err = ParseTenantError;

    fn from_str(text: &str) -> Result<Self, ParseTenantError> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&first, after)) = rest.split_first() {
            if first != b'%' {
                bytes.push(first);
                rest = after;
                continue;
            }
            let escape = || ParseTenantError::Escape(text.to_owned());
            let digits = after
                .get(..2)
                .and_then(|digits| std::str::from_utf8(digits).ok());
            let digits = digits
                .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
                .ok_or_else(escape)?;
            bytes.push(u8::from_str_radix(digits, 16).map_err(|_| escape())?);
            rest = &after[2..];
        }
        Self::try_new(bytes)
    }
}

/// A tenant: the unit of restore. Text form `account:42`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant {
    /// What kind of id it is.
    pub kind: TenantKind,
    /// The id itself.
    pub id: TenantId,
}

impl fmt::Display for Tenant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.kind, self.id)
    }
}

impl FromStr for Tenant {
    type Err = ParseTenantError;

    fn from_str(text: &str) -> Result<Self, ParseTenantError> {
        let (kind, id) = text
            .split_once(':')
            .ok_or_else(|| ParseTenantError::NoKind(text.to_owned()))?;
        Ok(Self {
            kind: TenantKind::parse(kind)?,
            id: id.parse()?,
        })
    }
}

/// Who a row belongs to. Shared rows sort before every tenant's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// Nobody in particular: a shared table's row, or a row whose tenant is NULL or empty.
    Shared,
    /// This tenant.
    Tenant(TenantId),
}

impl Owner {
    /// The tenant's bytes, or nothing for shared rows: a tenant id is never empty, so the two
    /// cannot be confused, and the order is the same as [`Owner`]'s.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Shared => &[],
            Self::Tenant(id) => id.as_bytes(),
        }
    }

    /// The owner with these bytes; none means [`Owner::Shared`].
    ///
    /// # Errors
    /// `Length` if there are more than [`TENANT_ID_BYTES_MAX`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParseTenantError> {
        if bytes.is_empty() {
            Ok(Self::Shared)
        } else {
            TenantId::try_new(bytes).map(Self::Tenant)
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared => formatter.write_str("(shared)"),
            Self::Tenant(id) => id.fmt(formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_tenant_reads_back_from_its_text(bytes in proptest::collection::vec(any::<u8>(), 1..40)) {
            let tenant = Tenant {
                kind: TenantKind::parse("account").unwrap(),
                id: TenantId::try_new(bytes).unwrap(),
            };
            prop_assert_eq!(tenant.to_string().parse(), Ok(tenant));
        }

        #[test]
        fn parsing_any_text_never_panics(text: String) {
            let _ = text.parse::<Tenant>();
        }

        #[test]
        fn owners_sort_like_their_bytes(left: Vec<u8>, right: Vec<u8>) {
            let owner = |bytes: &[u8]| Owner::from_bytes(bytes).unwrap();
            prop_assert_eq!(left.cmp(&right), owner(&left).cmp(&owner(&right)));
        }
    }

    #[test]
    fn what_names_no_tenant_is_refused() {
        for text in [
            "42",
            "account:",
            ":42",
            "Account:42",
            "account:%4",
            "account:%+1",
            "9a:1",
        ] {
            assert!(text.parse::<Tenant>().is_err(), "{text}");
        }
        assert_eq!("a:b:c".parse::<Tenant>().unwrap().id.as_bytes(), b"b:c");
        assert!(TenantId::try_new(vec![0; TENANT_ID_BYTES_MAX + 1]).is_err());
    }
}
