//! TLS for connections, where the crate is built with it.

#[cfg(feature = "tls")]
pub(crate) use verified::connector;

#[cfg(not(feature = "tls"))]
pub(crate) use refused::connector;

#[cfg(not(feature = "tls"))]
mod refused {
    use reinstate_core::{ErrorKind, StoreError};
    use tokio_postgres::NoTls;

    /// Refuses: what was asked for cannot be given.
    pub(crate) fn connector(_root_certificates: Option<&str>) -> Result<NoTls, StoreError> {
        Err(StoreError::new(
            ErrorKind::Usage,
            "the connection needs TLS, and this program was built without it: build with the \
             feature tls, or say sslmode=disable if plain text is meant",
        ))
    }
}

#[cfg(feature = "tls")]
mod verified {
    use std::sync::Arc;

    use reinstate_core::{ErrorKind, StoreError};
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use rustls::{ClientConfig, RootCertStore};
    use tokio_postgres_rustls::MakeRustlsConnect;

    /// A connector that checks the server's certificate and name.
    ///
    /// # Errors
    /// `Usage` if the file of certificates cannot be read or holds none; `Other` if the machine
    /// trusts no certificate at all.
    pub(crate) fn connector(
        root_certificates: Option<&str>,
    ) -> Result<MakeRustlsConnect, StoreError> {
        let roots = match root_certificates {
            Some(path) => from_file(path)?,
            None => from_machine()?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| {
                StoreError::new(ErrorKind::Other, "set TLS up: no protocol version").because(error)
            })?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(MakeRustlsConnect::new(config))
    }

    fn from_file(path: &str) -> Result<RootCertStore, StoreError> {
        let unreadable = |error: rustls::pki_types::pem::Error| {
            let message = format!("read the certificates in {path}");
            StoreError::new(ErrorKind::Usage, message).because(error)
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
            let certificate = certificate.map_err(unreadable)?;
            roots.add(certificate).map_err(|error| {
                let message = format!("read the certificates in {path}");
                StoreError::new(ErrorKind::Usage, message).because(error)
            })?;
        }
        if roots.is_empty() {
            let message = format!("read the certificates in {path}: there are none");
            return Err(StoreError::new(ErrorKind::Usage, message));
        }
        Ok(roots)
    }

    fn from_machine() -> Result<RootCertStore, StoreError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(StoreError::new(
                ErrorKind::Other,
                "this machine trusts no certificate: name a file with sslrootcert",
            ));
        }
        Ok(roots)
    }
}
